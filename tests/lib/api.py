"""A stand-in of balena's API: a real HTTPS server with the shapes of its replies, on Python's own server and OpenSSL.

    with Api(certificate, gzip_file) as api:
        (folder / "config.json").write_bytes(api.config(ca))
        ... api.requests, api.complaints ...

It is as strict as it can be: whoever asks for a release with another query, sends no token, or writes a version so that
`+` becomes a blank, is refused, and it is kept in `complaints`.
"""

import base64
import collections
import http.server
import json
import pathlib
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse

Asked = collections.namedtuple("Asked", "method path query raw fields body time")

RELEASES = ("(is_final eq true) and (is_invalidated eq false) and (status eq 'success') and "
            "(belongs_to__application/any(bta:(bta/is_host eq true) and "
            "(bta/is_for__device_type/any(dt:dt/slug eq '{}')) and "
            "(not(bta/application_tag/any(at:at/tag_key eq 'release-policy')) or "
            "(bta/application_tag/any(at:(at/tag_key eq 'release-policy') and (at/value eq 'default'))))))")
ALIAS = "device_type_alias/any(dta:dta/is_referenced_by__alias eq '{}')"

VERSIONS = ["2.9.7+rev1", "5.1.20", "5.1.20+rev1", "5.1.20+rev3", "5.1.20+rev2", "5.1.9+rev12", "5.0.1",
            "4.99.0+rev1", "6.0.0-1700000000000", "6.0.0-rc.1+rev9", "2024.1.1-prerelease"]
KEY = "sEcReT-provisioning-key"
DEVICE_KEY = "sEcReT-device-key"
UUID = "0123456789abcdef0123456789abcdef"


def large(versions, count=4000, seed=9):
    """A reply with those versions among thousands of older ones, and all that a reply may have beside them."""
    chance = random.Random(seed)
    older = [f"1.{chance.randrange(90)}.{chance.randrange(40)}+rev{chance.randrange(9)}" for _ in range(count)]
    names = older + list(versions)
    chance.shuffle(names)
    entries = []
    for name in names:
        nested = {"raw_version": "99.0.0", "deep": [{"d": [{"raw_version": "98.0.0"}]}, None, True, -1.5e-7]}
        before = {"belongs_to__application": {"__id": chance.randrange(9**9), "x": nested}} if chance.random() < .3 else {}
        after = {"note": 'a "raw_version":"97.0.0" \\ in a text, \u20ac \U0001f600 \n\t/'} if chance.random() < .3 else {}
        text = json.dumps({**before, "raw_version": name, **after}, ensure_ascii=chance.random() < .5)
        if chance.random() < .2:
            # As right, and as some libraries write it.
            text = text.replace(f'"{name}"', '"' + name.replace("+", "\\u002b").replace(".", "\\u002E", 1) + '"')
        entries.append(text)
    deep = "[" * 40 + "]" * 40
    return ('{"meta": {"d": [{"raw_version": "96.0.0"}]}, "deep": ' + deep + ',\r\n "d" : [ ' + " ,\n".join(entries)
            + ' ], "next": null}').encode()


class Api:
    """The server; every setting may be changed while it runs."""

    def __init__(self, certificate, image=None, *, slug="genericx86-64-ext", versions=VERSIONS, keys=(KEY, DEVICE_KEY),
                 host="127.0.0.1", port=0, **settings):
        self.certificate, self.slug, self.keys, self.host = certificate, slug, keys, host
        self.image = pathlib.Path(image).read_bytes() if isinstance(image, (str, pathlib.Path)) else image
        self.versions = versions
        #: The bytes of the reply to a question for releases, instead of one made of `versions`.
        self.releases = None
        self.is_flasher = False
        #: ranges; whole: no ranges; absent: as openBalena; a URL: a redirect to there.
        self.download = "ranges"
        #: What download-size says; None: it is not known.
        self.size = 1 << 27
        self.is_chunked = False
        #: Seconds before each answer, by a regular expression for its path.
        self.delays = {}
        #: Instead of an answer: (status, body) by a regular expression for its path, as many times as the number says.
        self.failures = {}
        self.device_types = {slug: 58, "intel-nuc": 23}
        self.requests, self.complaints = [], []
        self._want_port = port
        for name, value in settings.items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    def __enter__(self):
        api = self

        class Handler(_Handler):
            pass

        Handler.api = api
        server = _Server((self.host, self._want_port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*map(str, self.certificate))
            # The handshake is the connection's thread's: a client that is slow keeps nobody waiting.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        self.vpn = Listener(self.host)
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self.vpn.close()

    def url(self, host=None):
        return f"http{'s' if self.certificate else ''}://{host or self.host}:{self.port}"

    def config(self, ca=None, *, name=None, key="apiKey", port=None, vpn_port=None, vpn=None, **more):
        """A config.json for this server: under a name, believed by the PEM file ca; key: apiKey, or deviceApiKey for a
        device that has its place already."""
        endpoint = f"http{'s' if self.certificate else ''}://{name or self.host}" + (f":{port or self.port}"
                                                                                     if port != 443 else "")
        config = {"apiEndpoint": endpoint, "applicationId": "1", "deviceType": self.slug,
                  "vpnEndpoint": vpn or name or self.host, "vpnPort": str(vpn_port or self.vpn.port),
                  "appUpdatePollInterval": 900000}
        if ca:
            config["balenaRootCA"] = base64.b64encode(pathlib.Path(ca).read_bytes()).decode()
        config |= {"apiKey": KEY} if key == "apiKey" else {"deviceApiKey": DEVICE_KEY, "uuid": UUID, "deviceId": 7,
                                                           "registered_at": 1700000000}
        return json.dumps(config | more).encode()

    def asked(self, path, method=None):
        """What was asked for with a path that the regular expression matches."""
        return [request for request in list(self.requests)
                if re.search(path, request.path) and method in (None, request.method)]

    def patches(self):
        """The bodies of what was changed at the device."""
        return [json.loads(request.body) for request in self.asked(r"/device\(uuid=", "PATCH")]


class Listener:
    """A port that takes connections, and counts them: the VPN."""

    def __init__(self, host="127.0.0.1", port=0):
        self.connections = 0
        self._socket = socket.create_server((host, port))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A client that goes is no matter."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api = None

    def log_message(self, *_):
        """Nothing: the console is the tests'."""

    def do_GET(self):
        self._take()

    do_HEAD = do_PATCH = do_POST = do_PUT = do_DELETE = do_GET

    def _take(self):
        api = self.api
        path, _, raw = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # As a form is read: a plus is a blank, so that one that is meant must be escaped.
        parts = [part.partition("=") for part in raw.split("&") if part]
        query = {urllib.parse.unquote_plus(name): urllib.parse.unquote_plus(value) for name, _, value in parts}
        fields = {name.lower(): value for name, value in self.headers.items()}
        path = urllib.parse.unquote(path)
        api.requests.append(Asked(self.command, path, query, self.path, fields, body, time.monotonic()))
        for pattern, seconds in api.delays.items():
            if re.search(pattern, path):
                time.sleep(seconds)
        for pattern, failure in api.failures.items():
            status, text, times = failure
            if times > 0 and re.search(pattern, path):
                api.failures[pattern] = (status, text, times - 1)
                return self._reply(status, text)
        if re.search(r"[ '\"]", self.path):
            return self._complain(f"a blank or a quote is not escaped: {self.path}")
        if path != "/ping":
            if fields.get("authorization") not in [f"Bearer {key}" for key in api.keys]:
                return self._reply(401, b"Unauthorized")
        self._answer(path, query, raw, body)

    def _answer(self, path, query, raw, body):
        api = self.api
        slug_path = f"/device-types/v1/{api.slug}/images/"
        if path == "/ping" and self.command == "GET":
            self._reply(200, b"OK\n", kind="text/html")
        elif path == "/v7/release" and self.command == "GET":
            self._releases(query)
        elif path == "/v7/device_type" and self.command == "GET":
            self._device_type(query)
        elif path.startswith(slug_path) and path.endswith("/download-size") and api.download != "absent":
            version = path[len(slug_path):-len("/download-size")]
            if version not in api.versions:
                return self._complain(f"the size of a version that is not there: {path}", 404)
            if api.size is None:
                return self._reply(404, b"no size")
            self._json({"size": api.size})
        elif path == "/download" and self.command in ("GET", "HEAD") and api.download != "absent":
            self._download(query, raw)
        elif path.startswith("/v7/device(uuid=") and self.command == "PATCH":
            if path != f"/v7/device(uuid='{UUID}')":
                return self._complain(f"another device: {path}", 404)
            json.loads(body)
            self._reply(200, b"OK")
        else:
            self._reply(404, b"<!DOCTYPE html><html><body>Not Found</body></html>", kind="text/html")

    def _releases(self, query):
        api = self.api
        known = {slug: RELEASES.format(slug) for slug in api.device_types}
        if query.get("$select") != "raw_version" or query.get("$filter") not in known.values():
            return self._complain(f"another query for releases: {query}", 400)
        if query["$filter"] != known[api.slug]:
            return self._json({"d": []})
        if api.releases is not None:
            return self._reply(200, api.releases, kind="application/json")
        self._json({"d": [{"raw_version": version} for version in api.versions]})

    def _device_type(self, query):
        api = self.api
        for slug, number in api.device_types.items():
            if query.get("$filter") == f"slug eq '{slug}'" and query.get("$select") == "id":
                return self._json({"d": [{"id": number}]})
            if query.get("$filter") == ALIAS.format(slug) and query.get("$select") == "contract" \
                    and query.get("$top") == "1":
                media = {"defaultBoot": "internal", "altBoot": ["usb_mass_storage", "network"]} if api.is_flasher else \
                    {"defaultBoot": "sdcard"}
                contract = {"slug": slug, "version": "1", "type": "hw.device-type", "aliases": [slug], "name": "A \"board\"",
                            "assets": {"logo": {"url": "data:image/svg+xml;base64," + "QUJD" * 5000}},
                            "data": {"arch": "amd64", "hdmi": True, "media": media, "storage": {"internal": True}},
                            "partials": {"instructions": ["Put <it> in\n", "Wait \u23f3"] * 20}}
                return self._json({"d": [{"contract": contract}]})
        if re.fullmatch(ALIAS.format("[^']*").replace("(", r"\(").replace(")", r"\)"), query.get("$filter", "")) or \
                re.fullmatch("slug eq '[^']*'", query.get("$filter", "")):
            return self._json({"d": []})
        self._complain(f"another query for device types: {query}", 400)

    def _download(self, query, raw):
        api = self.api
        wanted = {"deviceType": api.slug, "fileType": ".gz"} | ({"imageType": "raw"} if api.is_flasher else {})
        version = query.get("version")
        if {name: value for name, value in query.items() if name != "version"} != wanted or version not in api.versions:
            return self._complain(f"another query for the image: {raw}", 400)
        if api.download.startswith("http"):
            return self._reply(302, b"elsewhere", Location=api.download)
        content, start = api.image, 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        tag = '"image-1"'
        fields = {"ETag": tag, "Content-Disposition": f'attachment; filename="balena-cloud-{api.slug}-{version}.img.gz"'}
        if api.download == "ranges" and asked and self.headers.get("If-Range") in (None, tag):
            start = int(asked[1])
            if start >= len(content):
                return self._reply(416, b"", Content_Range=f"bytes */{len(content)}")
            end = min(int(asked[2] or len(content) - 1) + 1, len(content))
            fields["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            return self._reply(206, content[start:end], kind="application/gzip", **fields)
        self._reply(200, content, kind="application/gzip", **fields)

    def _complain(self, why, status=400):
        self.api.complaints.append(why)
        self._reply(status, json.dumps({"error": "what is this?"}).encode(), kind="application/json")

    def _json(self, value):
        self._reply(200, json.dumps(value).encode(), kind="application/json; charset=utf-8")

    def _reply(self, status, body, kind="text/plain", **fields):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        is_chunked = self.api.is_chunked and status == 200 and body
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if not is_chunked:
            self.wfile.write(body)
            return
        for start in range(0, len(body), 777):
            piece = body[start:start + 777]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
