//! Whether a server is who it should be: its certificates, by webpki, against the roots that are trusted.
//!
//! rustls asks for a verifier of one's own through a method called `dangerous`; this one leaves nothing out. It reads
//! the roots at each handshake and keeps those that a presented certificate names, so their number costs no memory; and
//! it asks of authorities what webpki does not: that their keys may sign certificates.

use super::super::trust::Trust;
use super::{date, der, roots};
use crate::text::Text;
use pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::{Mutex, MutexGuard, PoisonError};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

/// What kind of problem there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Problem {
    /// A certificate has expired, or is not yet valid; or the clock is wrong.
    Clock,
    /// Nobody who is trusted has signed its certificate.
    Unknown,
    /// There are no trusted roots.
    Trust,
    /// Any other.
    Other,
}

/// So many roots with fitting names are tried. Authorities that change their keys have two.
const MOST_ANCHORS: usize = 8;

/// So many certificates may be presented.
const MOST_PRESENTED: usize = 16;

/// What came out of it.
#[derive(Debug)]
pub struct Finding {
    /// What kind of problem it is.
    pub problem: Problem,
    /// What is wrong, in words.
    pub why: Text<240>,
    /// The root in which the chain ends, as DER.
    pub root: Vec<u8>,
}

/// Verifies the certificates of one handshake.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    finding: Mutex<Finding>,
}

impl Verifier {
    /// One that believes these.
    pub fn new(trust: &Trust, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let finding = Finding { problem: Problem::Other, why: Text::new(), root: Vec::new() };
        Self { trust: *trust, algorithms, finding: Mutex::new(finding) }
    }

    /// What came out of it.
    pub fn finding(&self) -> MutexGuard<'_, Finding> {
        self.finding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong, and gives what rustls tells the server.
    fn refuse(&self, problem: Problem, why: Text<240>, told: CertificateError) -> Error {
        let mut finding = self.finding();
        (finding.problem, finding.why) = (problem, why);
        Error::InvalidCertificate(told)
    }

    /// The trusted roots that a presented certificate names as the one that signed it.
    fn candidates(&self, presented: &[&[u8]]) -> Result<Vec<CertificateDer<'static>>, Error> {
        let mut kept: Vec<CertificateDer<'static>> = Vec::new();
        let count = roots::for_each(
            self.trust.extra,
            self.trust.file,
            !self.trust.only_these,
            &mut |root| {
                let Some(parts) = der::parts(root) else { return };
                let signed = |certificate: &&[u8]| {
                    der::parts(certificate).is_some_and(|signed| signed.issuer == parts.subject)
                };
                if kept.len() < MOST_ANCHORS
                    && presented.iter().any(signed)
                    && !kept.iter().any(|other| **other == *root)
                {
                    kept.push(CertificateDer::from(root.to_vec()));
                }
            },
        );
        let told = CertificateError::UnknownIssuer;
        match count {
            Err(error) => Err(self.refuse(Problem::Trust, crate::text!("{}", error), told)),
            Ok(0) => {
                let why = Text::from("there is no certificate of an authority (CA) to trust here");
                Err(self.refuse(Problem::Trust, why, told))
            }
            Ok(_) => Ok(kept),
        }
    }

    /// What webpki found, in words.
    fn explain(&self, error: &webpki::Error, presented: &[&[u8]]) -> Error {
        use CertificateError as Told;
        use webpki::Error as E;
        let (problem, why, told) = match error {
            E::CertExpired { time, not_after } => {
                let why = about_time("expired on", *not_after, *time);
                (Problem::Clock, why, Told::Expired)
            }
            E::CertNotValidYet { time, not_before } => {
                let why = about_time("is not valid before", *not_before, *time);
                (Problem::Clock, why, Told::NotValidYet)
            }
            E::CertNotValidForName(_) => {
                (Problem::Other, names_of(presented), Told::NotValidForName)
            }
            E::UnknownIssuer => (Problem::Unknown, unknown(presented), Told::UnknownIssuer),
            other => {
                let (why, told) = words(other);
                (Problem::Other, Text::from(why), told)
            }
        };
        self.refuse(problem, why, told)
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
        presented: &[&[u8]],
    ) -> Result<(), Error> {
        let candidates = self.candidates(presented)?;
        let explain = |error| self.explain(&error, presented);
        let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
        let mut roots = Vec::new();
        for root in &candidates {
            if let Ok(anchor) = anchor_from_trusted_cert(root) {
                anchors.push(anchor);
                roots.push(root);
            }
        }
        let server = EndEntityCert::try_from(end_entity).map_err(explain)?;
        let path = server
            .verify_for_usage(
                self.algorithms.all,
                &anchors,
                intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                Some(&may_sign),
            )
            .map_err(explain)?;
        server.verify_is_valid_for_subject_name(name).map_err(explain)?;
        let used = anchors.iter().position(|anchor| core::ptr::eq(anchor, path.anchor()));
        if let Some(root) = used.and_then(|index| roots.get(index)) {
            self.finding().root = root.to_vec();
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if intermediates.len() >= MOST_PRESENTED {
            let why = Text::from("it presents more than 16 certificates");
            return Err(self.refuse(Problem::Other, why, CertificateError::BadEncoding));
        }
        let mut presented = Vec::from([&**end_entity]);
        presented.extend(intermediates.iter().map(|certificate| &**certificate));
        self.verify(end_entity, intermediates, name, now, &presented)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// When the program's commit was made, in seconds since 1970; 0 where nobody knew.
const BUILT: u64 = number(env!("TAKEOVER_DATE"));

const fn number(digits: &str) -> u64 {
    let mut digits = digits.as_bytes();
    let mut number = 0;
    while let [digit, rest @ ..] = digits {
        number = number * 10 + (*digit - b'0') as u64;
        digits = rest;
    }
    number
}

/// What is wrong with the time of a certificate, or with the clock.
fn about_time(what: &str, then: UnixTime, now: UnixTime) -> Text<240> {
    let (today, then) = (date::text(now.as_secs()), date::text(then.as_secs()));
    if now.as_secs() < BUILT {
        let built = date::text(BUILT);
        return crate::text!(
            "its certificate {} {}, but the clock here is wrong: it says {}, and this program is of {}",
            what,
            then,
            today,
            built
        );
    }
    crate::text!("its certificate {} {}; the clock here says {}", what, then, today)
}

/// keyUsage of all authorities but the root (RFC 5280, 6.1.4 (n)), which webpki does not look at.
fn may_sign(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    let may = |certificate: &[u8]| {
        der::parts(certificate).is_some_and(|parts| parts.may_sign_certificates())
    };
    if path.intermediate_certificates().all(|certificate| may(&certificate.der())) {
        Ok(())
    } else {
        Err(webpki::Error::EndEntityUsedAsCa)
    }
}

/// The rest of what can be wrong, and what the server is told.
fn words(error: &webpki::Error) -> (&'static str, CertificateError) {
    use CertificateError as Told;
    use webpki::Error as E;
    match error {
        E::CaUsedAsEndEntity => {
            ("its certificate is that of an authority (CA), not of a server", Told::InvalidPurpose)
        }
        E::EndEntityUsedAsCa => (
            "one of its certificates was signed with a key that may not sign certificates (it is no CA's)",
            Told::UnknownIssuer,
        ),
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            ("its certificate is not for servers (extendedKeyUsage)", Told::InvalidPurpose)
        }
        E::NameConstraintViolation | E::PathLenConstraintViolated => (
            "one of its certificates goes beyond what the authority that signed it is limited to",
            Told::UnknownIssuer,
        ),
        E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => (
            "a signature in its certificates is wrong, or of a key that is too short",
            Told::BadSignature,
        ),
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => (
            "its certificates are signed in a way that is not trusted any more, or not known",
            Told::BadSignature,
        ),
        _ => ("its certificates cannot be understood", Told::BadEncoding),
    }
}

/// Whom it cannot be traced to.
fn unknown(presented: &[&[u8]]) -> Text<240> {
    let first = presented.first().and_then(|certificate| der::parts(certificate));
    if first.is_some_and(|parts| parts.issuer == parts.subject) {
        return Text::from("its certificate is signed by itself (self-signed), and not trusted");
    }
    let last = presented.last().and_then(|certificate| der::parts(certificate));
    let last = last.map_or(&[][..], |parts| parts.issuer);
    let name = der::common_name(last);
    crate::text!("its certificate is signed by \"{}\", which is not trusted here", name)
}

/// The names that a server's certificate is for.
fn names_of(presented: &[&[u8]]) -> Text<240> {
    let mut names: Text<160> = Text::new();
    let certificate = CertificateDer::from(presented.first().copied().unwrap_or_default());
    if let Ok(server) = EndEntityCert::try_from(&certificate) {
        for name in server.valid_dns_names().take(4) {
            let comma = if names.is_empty() { "" } else { ", " };
            names = crate::text!("{}{}{}", names, comma, name);
        }
    }
    let names = if names.is_empty() { Text::from("none") } else { names };
    crate::text!("its certificate is for another name: {}", names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_program_is_called_wrong_and_any_other_is_named() {
        let at = |seconds| UnixTime::since_unix_epoch(core::time::Duration::from_secs(seconds));
        let then = BUILT + 400 * 86400;
        let (day, built) = (date::text(then).to_string(), date::text(BUILT).to_string());
        let then = at(then);
        let text = about_time("is not valid before", then, at(981_158_400));
        assert_eq!(
            &*text,
            format!(
                "its certificate is not valid before {day}, but the clock here is wrong: it says 2001-02-03, and this \
                 program is of {built}"
            )
        );
        let text = about_time("is not valid before", then, at(BUILT));
        let why = format!("its certificate is not valid before {day}; the clock here says {built}");
        assert_eq!(&*text, why);
    }
}
