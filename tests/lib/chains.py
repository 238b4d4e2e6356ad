"""Chains of certificates for servers of the tests, right and wrong ones, made by OpenSSL's command.

    chains = make(folder)
    chain = chains["rsa2048"]
    chain.certificates, chain.key, chain.ca    paths: PEM of what the server sends, its key, what the client trusts
    chain.host                                 what the client calls the server: a name or an address
    chain.expected                             None where the server is to be believed, else words of the error

A name can be read as a tuple, too: `certificates, key, ca, expected = chain`.
The names all resolve to loopback where they end in .localhost (RFC 6761); addresses are 127.0.0.1 and ::1.
"""

import pathlib
import subprocess

HOST = "server.localhost"
KEYS = {
    "p256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "p521": ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "ed25519": ["ED25519"],
    "rsa1024": ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "rsa2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
}
CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
LEAF = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"


class Chain:
    def __init__(self, certificates, key, ca, host, expected):
        self.certificates, self.key, self.ca, self.host, self.expected = certificates, key, ca, host, expected

    def __iter__(self):
        return iter((self.certificates, self.key, self.ca, self.expected))


class Certificate:
    """One certificate: its PEM and its key are files."""

    def __init__(self, path, key):
        self.path, self.key = path, key


class Maker:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.count = 0

    def key(self, kind, number=0):
        """Keys are made once, and shared: those of RSA take a second each."""
        path = self.folder / f"key-{kind}-{number}"
        if not path.exists():
            algorithm, *options = KEYS[kind]
            openssl("genpkey", "-algorithm", algorithm, *options, "-out", path)
        return path

    def certificate(self, subject, extensions, key, signer=None, days=("20200101000000Z", "20400101000000Z"),
                    digest="sha256"):
        """Signed by another one, else by itself."""
        self.count += 1
        path = self.folder / f"certificate-{self.count}"
        request, config, database = (path.with_suffix(end) for end in (".csr", ".cnf", ".db"))
        database.write_text("")
        config.write_text(f"[ca]\ndefault_ca=own\n[own]\ndatabase={database}\nnew_certs_dir={self.folder}\n"
                          f"policy=any\nx509_extensions=extensions\nrand_serial=yes\nunique_subject=no\n"
                          f"email_in_dn=no\n[any]\nO=optional\nCN=optional\n"
                          f"[req]\ndistinguished_name=name\n[name]\n[extensions]\n{extensions}")
        openssl("req", "-new", "-key", key, "-subj", subject, "-config", config, "-out", request)
        own = ["-selfsign", "-keyfile", key] if signer is None else ["-cert", signer.path, "-keyfile", signer.key]
        if "ed25519" in str(key if signer is None else signer.key):
            digest = "null"
        openssl("ca", "-batch", "-notext", "-config", config, "-in", request, "-out", path, "-md", digest,
                "-startdate", days[0], "-enddate", days[1], *own)
        return Certificate(path, key)

    def chain(self, name, server, others, root, host=HOST, expected=None):
        """What the server sends is the server's own certificate and the others."""
        path = self.folder / f"{name}.pem"
        path.write_text("".join(one.path.read_text() for one in (server, *others)))
        return Chain(path, server.key, root.path, host, expected)


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments}: {done.stderr[-600:]}")


def names(*all):
    return "subjectAltName=" + ",".join(f"IP:{one}" if one.replace(".", "").isdigit() or ":" in one else f"DNS:{one}"
                                        for one in all) + "\n"


def make(folder):
    """Makes all of them: name -> Chain."""
    maker = Maker(folder)
    chains = {}
    root = maker.certificate("/O=Tests/CN=Root of the tests", CA, maker.key("p256", 1))
    middle = maker.certificate("/O=Tests/CN=Intermediate", CA, maker.key("p256", 2), root)

    def add(name, server, others=(middle,), trusted=root, host=HOST, expected=None):
        chains[name] = maker.chain(name, server, others, trusted, host, expected)

    def leaf(extensions=LEAF + names(HOST), key="p256", signer=middle, **more):
        return maker.certificate("/CN=a server", extensions, maker.key(key), signer, **more)

    good = leaf()
    add("p256", good)
    for kind in ("rsa2048", "rsa4096", "p384"):
        root_here = maker.certificate(f"/CN=Root {kind}", CA, maker.key(kind, 1))
        digest = "sha384" if kind == "p384" else "sha256"
        middle_here = maker.certificate(f"/CN=Intermediate {kind}", CA, maker.key(kind, 1), root_here, digest=digest)
        add(kind, leaf(key=kind, signer=middle_here, digest=digest), [middle_here], root_here)
    add("ed25519", leaf(key="ed25519"))
    rsa = maker.certificate("/CN=Root sha512", CA, maker.key("rsa2048", 1))
    add("sha512", leaf(key="rsa2048", signer=rsa, digest="sha512"), [], rsa)
    add("root sent, too", good, [middle, root])
    add("wrong order", good, [root, middle])
    add("wildcard", leaf(LEAF + names("*.example.localhost")), host="a.example.localhost")
    add("address", leaf(LEAF + names("127.0.0.1", "::1")), host="127.0.0.1")
    add("address of IPv6", leaf(LEAF + names("127.0.0.1", "::1")), host="::1")
    add("many names", leaf(LEAF + names(*(f"n{number}.localhost" for number in range(60)), HOST)))
    add("no key usage", leaf("subjectAltName=DNS:" + HOST + "\n"))

    add("intermediate missing", good, [], expected="which is not trusted here")
    add("unknown authority", good, trusted=maker.certificate("/CN=Another root", CA, maker.key("p256", 3)),
        expected="signed by \"Root of the tests\", which is not trusted here")
    namesake = maker.certificate("/O=Tests/CN=Root of the tests", CA, maker.key("p256", 4))
    add("root of the same name", good, trusted=namesake, expected="signature")
    own = maker.certificate("/CN=myself", LEAF + names(HOST), maker.key("p256"))
    add("self-signed", own, [], expected="self-signed")
    add("self-signed, trusted", own, [], own)
    own_ca = maker.certificate("/CN=myself", CA + names(HOST), maker.key("p256"))
    add("authority as server", own_ca, [], own_ca, expected="is that of an authority (CA)")
    add("wrong host", leaf(LEAF + names("other.localhost", "another.localhost")),
        expected="is for another name: other.localhost, another.localhost")
    add("wildcard two deep", leaf(LEAF + names("*.example.localhost")), host="a.b.example.localhost",
        expected="is for another name: *.example.localhost")
    add("name alone in CN", maker.certificate("/CN=" + HOST, LEAF, maker.key("p256"), middle),
        expected="is for another name")
    add("wrong address", leaf(LEAF + names("127.0.0.2")), host="127.0.0.1", expected="is for another name")
    add("expired", leaf(days=("20200101000000Z", "20210203000000Z")), expected="expired on 2021-02-03")
    add("not yet valid", leaf(days=("20380405000000Z", "20400101000000Z")), expected="is valid from 2038-04-05 on")
    old = maker.certificate("/O=Tests/CN=Old", CA, maker.key("p256", 5), root, ("20200101000000Z", "20210203000000Z"))
    add("intermediate expired", leaf(signer=old), [old], expected="expired on 2021-02-03")
    server = maker.certificate("/CN=Another server", LEAF + names(HOST), maker.key("p256", 12), middle)
    add("server's certificate as authority", leaf(signer=server), [server, middle], expected="is no CA's")
    for name, usage in (("no keyCertSign", "keyUsage=critical,digitalSignature\n"),
                        ("no keyCertSign, not critical", "keyUsage=cRLSign\n")):
        signer = maker.certificate("/CN=Signs not", "basicConstraints=critical,CA:TRUE\n" + usage,
                                   maker.key("p256", 6), root)
        add(name, leaf(signer=signer), [signer], expected="may not sign certificates")
    plain_ca = maker.certificate("/CN=Says nothing", "basicConstraints=critical,CA:TRUE\n", maker.key("p256", 7), root)
    add("authority without keyUsage", leaf(signer=plain_ca), [plain_ca])
    for name, constraint in (("name permitted", None), ("name not permitted", "limited to")):
        allowed = "localhost" if constraint is None else "example.com"
        signer = maker.certificate("/CN=Limited", CA + f"nameConstraints=critical,permitted;DNS:{allowed}\n",
                                   maker.key("p256", 8), root)
        add(name, leaf(signer=signer), [signer], expected=constraint)
    short = maker.certificate("/CN=Short", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n",
                              maker.key("p256", 9), root)
    below = maker.certificate("/CN=Below", CA, maker.key("p256", 10), short)
    add("longer than pathlen", leaf(signer=below), [below, short], expected="limited to")
    add("for clients", leaf(LEAF.replace("serverAuth", "clientAuth") + names(HOST)), expected="not for servers")
    add("critical and unknown", leaf(LEAF + names(HOST) + "1.2.3.4=critical,DER:0500\n"),
        expected="cannot be understood")
    add("RSA of 1024 bits", leaf(key="rsa1024"), expected="too short")
    weak = maker.certificate("/CN=Weak", CA, maker.key("rsa1024", 1), root)
    add("authority with RSA of 1024 bits", leaf(signer=weak), [weak], expected="too short")
    add("SHA-1", leaf(signer=maker.certificate("/CN=Old hash", CA, maker.key("p256", 11), root, digest="sha1"),
                      digest="sha1"), expected="not trusted")
    changed = maker.chain("changed", good, [middle], root)
    spoil(changed.certificates)
    chains["changed"] = Chain(changed.certificates, changed.key, root.path, HOST, "signature")
    return chains


def spoil(path):
    """Changes a bit in the signature of the first certificate of a file: its last line but one."""
    lines = path.read_text().splitlines()
    at = lines.index("-----END CERTIFICATE-----") - 2
    character = lines[at][10]
    lines[at] = lines[at][:10] + ("A" if character != "A" else "B") + lines[at][11:]
    path.write_text("\n".join(lines) + "\n")
