"""Real servers on loopback, as ordinary processes: nginx, Caddy, tinyproxy; and a hostile one of our own.

    with Nginx(folder, files, certificate=chain) as server:
        ... server.url("/image.gz"), server.requests() ...

Debian's packages are unpacked into the cache, not installed: no service of the machine is started, and no port but
those that are chosen here is taken. Each server dies with the program that started it.
"""

import base64
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import threading
import time

import leftovers
import rootfs

# Until a server takes connections: the machine may be busy.
STARTING = 60
# No exchange of the hostile server lasts longer, so that nothing of it outlives the tests.
LONGEST = 900


def unpacked(package):
    """The folder of an unpacked Debian package, from the cache."""
    def build(path):
        path.mkdir()
        download = ["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", package]
        try:
            rootfs.run(*download, cwd=path)
        except rootfs.BuildError:
            # The lists are missing or older than what the mirror has.
            rootfs.run("apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "update")
            rootfs.run(*download, cwd=path)
        deb = next(path.glob("*.deb"))
        rootfs.run("dpkg", "-x", deb, path)
        deb.unlink()
    return rootfs.cached(f"server-{package}", rootfs.key_of(package, 1), build)


def free_port(host="127.0.0.1"):
    """A port that nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def is_open(port, host="127.0.0.1"):
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


class Server:
    """A program that serves, from start to kill. Its files are in a folder of its own."""

    def __init__(self, folder, name):
        self.folder = pathlib.Path(folder) / f"{name}-{free_port()}"
        self.folder.mkdir()
        # What a server or a client of another user reads lies below.
        os.chmod(self.folder, 0o755)
        self.process = None

    def ports(self):
        """Where it must listen before it is called started."""
        raise NotImplementedError

    def command(self):
        """What starts it in the foreground."""
        raise NotImplementedError

    def __enter__(self):
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in self.command()], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, cwd=self.folder, preexec_fn=leftovers.die_with_parent,
                env=dict(os.environ, HOME=str(self.folder), XDG_DATA_HOME=str(self.folder),
                         XDG_CONFIG_HOME=str(self.folder)))
        end = time.monotonic() + STARTING
        while not all(map(is_open, self.ports())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise AssertionError(f"{self.command()[0]} does not serve:\n{self.words()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it, whatever it is doing."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def words(self):
        """What it has said."""
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.folder.iterdir())
                         if path.name in ("output", "error.log"))


# ------------------------------------------------------------------- nginx, Caddy

Seen = collections.namedtuple("Seen", "method path status range if_range authorization sent agent")


class Nginx(Server):
    """Serves a folder, in the clear and, with a certificate, by TLS.

    /NAME            with ranges, ETag and Last-Modified
    /no-ranges/NAME  always the whole file
    /slow/NAME       with 200 kB/s, but for the rest of a file
    /no-tag/NAME     without ETag
    /untold/NAME     without ETag and Last-Modified
    """

    def __init__(self, folder, files, certificate=None, more=None, host="127.0.0.1"):
        """certificate: (file of the chain, file of the key). more: name -> (chain, key, versions of TLS), each with a
        port of its own."""
        super().__init__(folder, "nginx")
        self.files, self.host = pathlib.Path(files), host
        self.secure = dict(more or {})
        if certificate:
            self.secure[True] = (*certificate, "TLSv1.2 TLSv1.3")
        self.port = free_port(host)
        self.secure_ports = {}
        while len(self.secure_ports) < len(self.secure):
            port = free_port(host)
            if port != self.port and port not in self.secure_ports.values():
                self.secure_ports[list(self.secure)[len(self.secure_ports)]] = port

    @property
    def tls_port(self):
        """The port of `certificate`."""
        return self.secure_ports[True]

    def ports(self):
        return [] if ":" in self.host else [self.port, *self.secure_ports.values()]

    def command(self):
        configuration = self.folder / "nginx.conf"
        configuration.write_text(self._configuration())
        return [unpacked("nginx") / "usr/sbin/nginx", "-e", "stderr", "-p", self.folder, "-c", configuration]

    def _configuration(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        servers = "\n".join(self._server(f"listen {host}:{port};" if name is None else f"listen {host}:{port} ssl;", name)
                            for name, port in [(None, self.port), *self.secure_ports.items()])
        temporary = " ".join(f"{name}_temp_path {self.folder}/temp-{name};"
                             for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        log = ",".join(f'"{name}":"{value}"' for name, value in {
            "method": "$request_method", "path": "$request_uri", "status": "$status", "range": "$http_range",
            "if_range": "$http_if_range", "authorization": "$http_authorization", "sent": "$body_bytes_sent",
            "agent": "$http_user_agent"}.items())
        return f"""
daemon off;
master_process off;
pid {self.folder}/pid;
error_log {self.folder}/error.log;
events {{ worker_connections 512; }}
http {{
    {temporary}
    log_format seen escape=json '{{{log}}}';
    access_log {self.folder}/access.log seen;
    default_type application/octet-stream;
    map $http_range $rate {{ default 0; "" 200k; "bytes=0-" 200k; }}
    sendfile on;
    {servers}
}}
"""

    def _server(self, listen, name):
        if name is not None:
            chain, key, versions = self.secure[name]
            # OpenSSL 3 has TLS 1.1 and small keys on its lowest level only.
            listen += f' ssl_certificate "{chain}"; ssl_certificate_key "{key}"; ssl_protocols {versions};' \
                      " ssl_ciphers DEFAULT@SECLEVEL=0;"
        return f"""server {{
        {listen}
        location / {{ root {self.files}; }}
        location /no-ranges/ {{ alias {self.files}/; max_ranges 0; }}
        location /slow/ {{ alias {self.files}/; limit_rate $rate; }}
        location /no-tag/ {{ alias {self.files}/; etag off; }}
        location /untold/ {{ alias {self.files}/; etag off; add_header Last-Modified ""; if_modified_since off; }}
    }}"""

    def url(self, path="/", secure=None, host=None):
        """The URL of a file: by address, or by the name `host`; secure: True, or a name of `more`."""
        port = self.secure_ports[secure] if secure else self.port
        host = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http{'s' if secure else ''}://{host}:{port}{path}"

    def requests(self):
        """What it was asked and what it sent, in the order in which the answers ended."""
        try:
            lines = (self.folder / "access.log").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [Seen(*[int(entry[name] or 0) if name in ("status", "sent") else entry[name] for name in Seen._fields])
                for entry in found]

    def forget(self):
        """Forgets what it was asked."""
        os.truncate(self.folder / "access.log", 0)

    def wait_for_requests(self, count):
        """An answer that was cut off is written down when the server has found out."""
        end = time.monotonic() + 20
        while len(self.requests()) < count and time.monotonic() < end:
            time.sleep(0.02)
        return self.requests()


class Caddy(Server):
    """Another server with another TLS (Go's): serves a folder, in the clear and, with a certificate, by TLS.

    /chunked/NAME    gives the file without telling its length
    """

    def __init__(self, folder, files, certificate=None):
        super().__init__(folder, "caddy")
        self.files, self.certificate = pathlib.Path(files), certificate
        self.port = free_port()
        self.tls_port = free_port() if certificate else None

    def ports(self):
        return [port for port in (self.port, self.tls_port) if port]

    def command(self):
        serve = f"bind 127.0.0.1\n root * {self.files}\n handle_path /chunked/* {{\n header -Content-Length\n" \
                " templates {\n mime text/nothing\n }\n file_server\n }\n handle {\n file_server\n }\n"
        sites = f"http://:{self.port} {{\n {serve} }}\n"
        if self.certificate:
            sites += f"https://:{self.tls_port} {{\n tls \"{self.certificate[0]}\" \"{self.certificate[1]}\"\n {serve} }}\n"
        text = f"{{\n admin off\n auto_https off\n servers {{\n protocols h1\n }}\n}}\n{sites}"
        (self.folder / "Caddyfile").write_text(text)
        return [unpacked("caddy") / "usr/bin/caddy", "run", "--config", self.folder / "Caddyfile", "--adapter",
                "caddyfile"]

    def url(self, path="/", secure=False, host="127.0.0.1"):
        port = self.tls_port if secure else self.port
        return f"http{'s' if secure else ''}://{host}:{port}{path}"


class Tinyproxy(Server):
    """A proxy, with Basic credentials (user, password) or for everybody."""

    def __init__(self, folder, credentials=None):
        super().__init__(folder, "tinyproxy")
        self.port, self.credentials = free_port(), credentials

    def ports(self):
        return [self.port]

    def command(self):
        lines = [f"Port {self.port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 600", "MaxClients 100",
                 f'LogFile "{self.folder}/log"', "LogLevel Info", f'PidFile "{self.folder}/pid"']
        if self.credentials:
            lines.append("BasicAuth {} {}".format(*self.credentials))
        (self.folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
        return [unpacked("tinyproxy-bin") / "usr/bin/tinyproxy", "-d", "-c", self.folder / "tinyproxy.conf"]

    def url(self, credentials=None):
        """What http_proxy and https_proxy are set to."""
        user = "{}:{}@".format(*credentials) if credentials else ""
        return f"http://{user}127.0.0.1:{self.port}"

    def requests(self):
        """The request lines that it saw."""
        log = (self.folder / "log").read_text(errors="replace")
        return re.findall(r"Request \(.*?\): (\S+ \S+ \S+)", log)


# ------------------------------------------------------------------ a hostile one

class Request:
    """What a client asked: names of header fields in small letters."""

    def __init__(self, head, body):
        line, _, rest = head.partition(b"\r\n")
        self.line = line.decode("latin-1")
        self.method, self.path, self.protocol = (self.line.split(" ") + ["", ""])[:3]
        self.fields = {}
        for field in rest.decode("latin-1").split("\r\n"):
            name, colon, value = field.partition(":")
            if colon:
                self.fields[name.strip().lower()] = value.strip()
        self.head, self.body = head, body
        self.time = time.monotonic()

    @property
    def start(self):
        """The first byte that Range asks for; None without Range."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.fields.get("range", ""))
        return int(match[1]) if match else None

    @property
    def end(self):
        """One behind the last byte that Range asks for, where it says so."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.fields.get("range", ""))
        return int(match[2]) + 1 if match else None


class Exchange:
    """A request, and the connection that the answer goes to."""

    def __init__(self, server, connection, request, number):
        self.server, self.connection, self.request, self.number = server, connection, request, number

    def send(self, *pieces):
        """Sends bytes; False when the client has gone."""
        try:
            for piece in pieces:
                self.connection.sendall(piece.encode("latin-1") if isinstance(piece, str) else piece)
        except OSError:
            return False
        return True

    def head(self, status="200 OK", **fields):
        """Sends a status line and fields (Content_Length=5)."""
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
        return self.send("\r\n".join(lines) + "\r\n\r\n")

    def reply(self, status="200 OK", body=b"", **fields):
        """A whole answer."""
        return self.head(status, Content_Length=len(body), **fields) and self.send(body)

    def redirect(self, to, status="302 Found"):
        """Sends the client elsewhere."""
        return self.reply(status, b"<p>elsewhere</p>", Location=to, Connection="close")

    def file(self, content, tag=None, modified=None, cut=None, then=None, **fields):
        """The file, as asked for (Range, If-Range); `cut` bytes of the body only, then `then` (or the connection ends)."""
        start, validators = self.request.start, (tag, modified)
        if_range = self.request.fields.get("if-range")
        if start is not None and (if_range is None or if_range in validators and not if_range.startswith("W/")):
            if start >= len(content):
                return self.reply("416 Range Not Satisfiable", Content_Range=f"bytes */{len(content)}")
            end = min(self.request.end or len(content), len(content))
            body, status = content[start:end], "206 Partial Content"
            fields = dict(fields, Content_Range=f"bytes {start}-{end - 1}/{len(content)}")
        else:
            body, status = content, "200 OK"
        if tag:
            fields = dict(fields, ETag=tag)
        if modified:
            fields = dict(fields, Last_Modified=modified)
        self.head(status, Content_Length=len(body), Accept_Ranges="bytes", **fields)
        if cut is None or cut >= len(body):
            return self.send(body)
        self.send(body[:cut])
        if then:
            then(self)
        self.cut()
        return False

    def cut(self):
        """Ends the connection at once, as if a cable had been pulled and put in again: with a reset."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def end(self):
        """Ends the connection as TLS wants it: with close_notify."""
        with contextlib.suppress(OSError):
            self.connection.unwrap()

    def close(self):
        """Ends the connection."""
        with contextlib.suppress(OSError):
            if isinstance(self.connection, ssl.SSLSocket):
                socket.socket.shutdown(self.connection, socket.SHUT_WR)
            self.connection.close()

    def wait_for_client(self, seconds=LONGEST):
        """Stands still until the client gives up, or is ended."""
        self.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass


class Hostile:
    """A server that does what the tests tell it: `answers` has a function(exchange) for each path, which may be cut at
    its query; the answer of "" is for every other. Every connection is for one request, unless the function returns
    "more". With a certificate it speaks TLS.

    Everything that was asked is kept in `seen`.
    """

    def __init__(self, answers, certificate=None, host="127.0.0.1"):
        self.answers, self.host = answers, host
        self.seen, self.connections = [], 0
        self._context = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*map(str, certificate))
        self._listener = None
        self._lock = threading.Lock()
        self._open = set()

    def __enter__(self):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, 0))
        self._listener.listen(256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def url(self, path="/", host=None):
        host = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http{'s' if self._context else ''}://{host}:{self.port}{path}"

    def paths(self):
        """The paths that were asked for, in order."""
        return [request.path for request in list(self.seen)]

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.settimeout(LONGEST)
        self._open.add(connection)
        try:
            if self._context:
                self._open.discard(connection)
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            waiting = b""
            while (request := self._read(connection, waiting)) is not None:
                request, waiting = request
                with self._lock:
                    self.seen.append(request)
                    number = sum(other.path == request.path for other in self.seen)
                answer = self.answers.get(request.path) or self.answers.get(request.path.split("?")[0]) \
                    or self.answers.get("") or (lambda exchange: exchange.reply("404 Not Found", b"not here"))
                exchange = Exchange(self, connection, request, number)
                if answer(exchange) != "more":
                    exchange.close()
                    return
        except (OSError, ValueError):
            pass
        finally:
            self._open.discard(connection)
            connection.close()

    @staticmethod
    def _read(connection, waiting):
        """The next request, and what came behind it; None when there is none."""
        while b"\r\n\r\n" not in waiting:
            more = connection.recv(65536)
            if not more:
                return None
            waiting += more
        head, _, waiting = waiting.partition(b"\r\n\r\n")
        request = Request(head, b"")
        length = int(request.fields.get("content-length", 0))
        while len(waiting) < length:
            more = connection.recv(65536)
            if not more:
                return None
            waiting += more
        request.body = waiting[:length]
        return request, waiting[length:]


def chunks(content, size=1000, line="{:x}\r\n", end="0\r\n\r\n"):
    """A body in chunks; `line` is how the size of one is written."""
    pieces = [content[start:start + size] for start in range(0, len(content), size)]
    return b"".join(line.format(len(piece)).encode() + piece + b"\r\n" for piece in pieces) + end.encode()


def sha256(content):
    """Of bytes, or of a file."""
    if isinstance(content, os.PathLike):
        content = pathlib.Path(content).read_bytes()
    return hashlib.sha256(content).hexdigest()


def basic(user, password):
    """The credentials as they go over the wire, which are as secret as the password."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()
