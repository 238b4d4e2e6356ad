//! Certificates in PEM, and the little that is read of DER.

use takeover::net::tls::{der, pem};

/// A file with PEM in it: the pieces in which it comes do not matter, and what was read is written and read again.
pub fn pem(bytes: &[u8]) -> bool {
    let (found, broken) = all(&mut bytes.chunks(bytes.len().max(1)));
    assert_eq!(all(&mut bytes.chunks(1 + super::hash(bytes) % 50)), (found.clone(), broken));
    for certificate in &found {
        let mut text = [0; 2 * pem::MAX_CERTIFICATE];
        let count = pem::write(certificate, &mut text);
        assert!(count > 0);
        assert_eq!(all(&mut [&text[..count]].into_iter()), (vec![certificate.clone()], 0));
        if let Some(parts) = der::parts(certificate) {
            super::assert_printable(der::common_name(parts.issuer));
            super::assert_printable(der::common_name(parts.subject));
            parts.may_sign_certificates();
        }
        assert!(der::each(certificate).map(<[u8]>::len).sum::<usize>() <= certificate.len());
    }
    !found.is_empty()
}

fn all(pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<Vec<u8>>, u32) {
    let (mut reader, mut found) = (pem::Reader::new(), Vec::new());
    for piece in pieces.chain([&b"\n"[..]]) {
        reader.push(piece, &mut |certificate| found.push(certificate.to_vec()));
    }
    reader.end();
    (found, reader.broken)
}

/// A certificate as it comes.
pub fn certificate(bytes: &[u8]) -> bool {
    for element in der::each(bytes) {
        assert!(element.len() >= 2);
    }
    super::assert_printable(der::common_name(bytes));
    der::parts(bytes).map(|parts| parts.may_sign_certificates()).is_some()
}
