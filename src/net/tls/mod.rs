//! TLS 1.2 and 1.3 by rustls: a session over a socket, whoever is at the other end verified.
//!
//! rustls allocates, and nothing else here does: all of it in the arena of `memory`, so every call of it is in there.
//! Sockets are read and written outside, with nobody kept waiting for the arena. Verification cannot be switched off.

mod crypto;
mod date;
pub mod der;
mod exchange;
mod hashes;
pub mod pem;
mod provider;
mod records;
pub(super) mod roots;
mod signatures;
mod used;
mod verifier;

use super::deadline::Deadline;
use super::socket::Socket;
use super::trust::Trust;
use crate::error::Error;
use crate::memory::{self, in_arena};
use crate::sys::clock;
use crate::text::Text;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use core::time::Duration;
use pki_types::{ServerName, UnixTime};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::time_provider::TimeProvider;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, PeerIncompatible};
use std::sync::Arc;
use verifier::{Problem, Verifier};

pub use used::used_roots;

/// Room for the largest record (RFC 5246, 6.2.3: 2^14 + 2048, and five bytes before them), and so for the longest
/// message of a handshake, which must be here in full: chains of certificates have 5,000 bytes.
const INCOMING: usize = 18 * 1024;
/// Room for what is sent at once.
const OUTGOING: usize = 4096;
/// A session is not begun with less than this left in the arena: see `memory::in_arena`.
const NEEDED: usize = 640 * 1024;
/// So much plain text goes into a record that is sent.
const PIECE: usize = 2048;

/// A TLS session over a connection, certificates verified.
pub struct Session {
    socket: Socket,
    /// In the arena. There until the session is dropped.
    state: Option<Box<State>>,
}

struct State {
    connection: UnbufferedClientConnection,
    /// What came and is not decrypted yet: its first bytes.
    incoming: Vec<u8>,
    received: usize,
    /// What is to be sent: its first bytes.
    outgoing: Vec<u8>,
    unsent: usize,
    /// Plain text that nobody has asked for yet, from this byte on.
    plain: Vec<u8>,
    taken: usize,
    is_closed: bool,
    /// Nothing is read or written any more.
    is_broken: bool,
    verifier: Arc<Verifier>,
    host: String,
}

/// What a step came to.
enum Step {
    /// More has to come before anything else.
    Receive,
    /// What is in `outgoing` has to be sent.
    Send,
    /// So much plain text was put where it was asked for.
    Plain(usize),
    /// The handshake is over, and nothing is left of what came.
    Ready,
    /// The other end has closed, properly.
    Closed,
}

/// Why something failed, about a server that is named later.
fn failure(problem: Problem, why: &str) -> Error {
    LAST_PROBLEM.store(problem as u8, Relaxed);
    let error = Error::failed("talking by TLS to", "", why);
    match problem {
        Problem::Clock => error.advice("see that the clock of this device is right"),
        Problem::Unknown => error.advice(
            "give the certificate of its authority with --ca-cert, or as balenaRootCA in config.json",
        ),
        Problem::Trust => error.advice("give a file of trusted certificates with --ca-cert"),
        Problem::Other => error,
    }
}

static LAST_PROBLEM: AtomicU8 = AtomicU8::new(Problem::Other as u8);

/// True when what last kept a session of this process from its start was a certificate that has expired or is not yet
/// valid: then the clock may be wrong, and the server's own, in the `Date` of an answer in the clear, worth a word.
pub fn doubts_the_clock() -> bool {
    LAST_PROBLEM.load(Relaxed) == Problem::Clock as u8
}

/// Waits until the kernel has random numbers. Soon after its start, where no device gives it any, it keeps whoever asks
/// waiting for as long as that takes, and would not say so: getrandom(2).
fn wait_for_random_numbers(host: &str, deadline: Deadline) -> Result<(), Error> {
    while getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) == Err(Errno::AGAIN) {
        if deadline.is_over() {
            let why = "the kernel has no random numbers yet";
            return Err(Error::refused("talking by TLS to", host, why).advice(
                "try again later: it gathers them from devices and keys; a driver of a generator or rngd helps",
            ));
        }
        clock::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The day of so many seconds since 1970, for people.
pub fn day(seconds: u64) -> Text<12> {
    date::text(seconds)
}

impl Session {
    /// Shakes hands with the server that is called `host` (a name or an address), whose certificate must be for it.
    pub fn start(
        socket: Socket,
        host: &str,
        trust: &Trust,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        wait_for_random_numbers(host, deadline)?;
        let mut started = Ok(None);
        in_arena(&mut || started = State::new(host, trust).map(Some));
        let mut session = Self { socket, state: started.map_err(|error| error.about(host))? };
        session.shake_hands(deadline)?;
        if let Some(state) = &session.state {
            used::remember(&state.verifier.finding().root);
        }
        Ok(session)
    }

    fn shake_hands(&mut self, deadline: Deadline) -> Result<(), Error> {
        loop {
            match self.step(&mut [], &[])? {
                Step::Receive => self.receive(deadline)?,
                Step::Send => self.send(deadline)?,
                Step::Plain(_) => {}
                Step::Ready => return Ok(()),
                Step::Closed => return Err(self.broken("it has closed the connection")),
            }
        }
    }

    /// Reads at least one byte of plain text; 0 when the other end has closed properly. A connection that ends without
    /// a word is an error: somebody may have cut it.
    pub fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        loop {
            match self.step(buffer, &[])? {
                Step::Receive | Step::Ready => self.receive(deadline)?,
                Step::Send => self.send(deadline)?,
                Step::Plain(0) => {}
                Step::Plain(count) => return Ok(count),
                Step::Closed => return Ok(0),
            }
        }
    }

    /// Writes all of it.
    pub fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        for piece in bytes.chunks(PIECE) {
            loop {
                match self.step(&mut [], piece)? {
                    Step::Receive => self.receive(deadline)?,
                    Step::Send => self.send(deadline)?,
                    Step::Plain(_) => {}
                    // It is in `outgoing`.
                    Step::Ready => break,
                    Step::Closed => return Err(self.broken("it has closed the connection")),
                }
            }
            self.send(deadline)?;
        }
        Ok(())
    }

    /// One step: puts plain text to `place`, or `text` into `outgoing`. What is wrong is told to the other end.
    fn step(&mut self, place: &mut [u8], text: &[u8]) -> Result<Step, Error> {
        self.bare_step(place, text).map_err(|error| {
            self.tell();
            error.about(self.host())
        })
    }

    fn bare_step(&mut self, place: &mut [u8], text: &[u8]) -> Result<Step, Error> {
        let mut result = Ok(Step::Closed);
        if let Some(state) = &mut self.state {
            in_arena(&mut || result = state.step(place, text));
        }
        result
    }

    /// What it is called by.
    fn host(&self) -> &str {
        self.state.as_ref().map_or("", |state| &state.host)
    }

    fn broken(&self, why: &str) -> Error {
        failure(Problem::Other, why).about(self.host())
    }

    /// Waits for more, and takes it.
    fn receive(&mut self, deadline: Deadline) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let place = state.incoming.get_mut(state.received..).unwrap_or_default();
        if place.is_empty() {
            return Err(self.broken("it sends a message that is too long"));
        }
        let count = self.socket.read(place, deadline)?;
        if count == 0 {
            return Err(
                self.broken("the connection ended before all was there (without close_notify)")
            );
        }
        state.received += count;
        Ok(())
    }

    fn send(&mut self, deadline: Deadline) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let length = core::mem::take(&mut state.unsent);
        let sent =
            self.socket.write_all(state.outgoing.get(..length).unwrap_or_default(), deadline);
        sent.map_err(|error| self.reason_to_close().unwrap_or(error))
    }

    /// Why the other end has closed, if it said so before: its alert lies there unread.
    #[cold]
    fn reason_to_close(&mut self) -> Option<Error> {
        if self.state.as_ref()?.is_broken {
            return None;
        }
        self.receive(Deadline::after(Duration::from_secs(1))).ok()?;
        self.bare_step(&mut [], &[]).err().map(|error| error.about(self.host()))
    }

    /// Tells the other end what is wrong, if that can be done at once.
    fn tell(&mut self) {
        // One step, in which rustls gives the alert that it has ready; another one would find the same error again.
        // What came stays where it is: rustls has noted places in it.
        let _ = self.bare_step(&mut [], &[]);
        if let Some(state) = &mut self.state {
            state.is_broken = true;
        }
        let _ = self.send(Deadline::after(Duration::from_secs(1)));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        in_arena(&mut || self.state = None);
    }
}

impl State {
    fn new(host: &str, trust: &Trust) -> Result<Box<Self>, Error> {
        let other = |why: &str| failure(Problem::Other, why);
        if memory::arena_left() < NEEDED {
            return Err(other("there are too many connections by TLS at once"));
        }
        let name = ServerName::try_from(host).map_err(|_| other("that is no name of a server"))?;
        let provider = provider::provider();
        let verifier = Verifier::new(trust, provider.signature_verification_algorithms);
        let verifier = Arc::new(verifier);
        let mut config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Clock))
            .with_safe_default_protocol_versions()
            .map_err(|error| explain(&error, &verifier))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let connection = UnbufferedClientConnection::new(Arc::new(config), name.to_owned());
        Ok(Box::new(Self {
            connection: connection.map_err(|error| explain(&error, &verifier))?,
            incoming: zeros(INCOMING),
            received: 0,
            outgoing: zeros(OUTGOING),
            unsent: 0,
            plain: Vec::new(),
            taken: 0,
            is_closed: false,
            is_broken: false,
            verifier,
            host: String::from(host),
        }))
    }

    fn step(&mut self, place: &mut [u8], text: &[u8]) -> Result<Step, Error> {
        if self.taken < self.plain.len() && !place.is_empty() {
            let count = copy(self.plain.get(self.taken..).unwrap_or_default(), place);
            self.taken += count;
            return Ok(Step::Plain(count));
        }
        if self.is_broken {
            return Err(failure(Problem::Other, "it failed before"));
        }
        if self.is_closed {
            return Ok(Step::Closed);
        }
        let incoming = self.incoming.get_mut(..self.received).unwrap_or_default();
        let free = self.outgoing.get_mut(self.unsent..).unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.connection.process_tls_records(incoming);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let record = traffic.next_record().and_then(Result::ok);
                let record = record.map_or(&[][..], |record| record.payload);
                let count = copy(record, place);
                keep(&mut self.plain, &mut self.taken, record.get(count..).unwrap_or_default());
                Ok(Step::Plain(count))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                data.encode(free).map(|count| self.unsent += count).map_err(|_| too_long())?;
                Ok(Step::Plain(0))
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Send)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let count = if text.is_empty() { Ok(0) } else { traffic.encrypt(text, free) };
                count.map(|count| self.unsent += count).map_err(|_| too_long())?;
                Ok(Step::Ready)
            }
            Ok(_) => {
                self.is_closed = true;
                Ok(Step::Closed)
            }
            Err(error) => Err(explain(&error, &self.verifier)),
        };
        self.incoming.copy_within(discard..self.received, 0);
        self.received -= discard;
        step
    }
}

fn too_long() -> Error {
    failure(Problem::Other, "what has to be sent is too long")
}

fn zeros(length: usize) -> Vec<u8> {
    core::iter::repeat_n(0, length).collect()
}

/// Copies as much as there is, or as fits; gives how much.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}

/// Keeps the rest of a record until somebody asks for it.
fn keep(plain: &mut Vec<u8>, taken: &mut usize, rest: &[u8]) {
    if *taken == plain.len() {
        plain.clear();
        *taken = 0;
    }
    plain.extend_from_slice(rest);
}

/// The clock of this device.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        clock::since_1970()
            .ok()
            .map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// What rustls found, in words.
fn explain(error: &rustls::Error, verifier: &Verifier) -> Error {
    let is_final = is_final(error);
    let error = in_words(error, verifier);
    if is_final { error.as_refusal() } else { error }
}

/// True where it is about who the server is, or what it speaks: asked again it would be the same.
fn is_final(error: &rustls::Error) -> bool {
    use rustls::{AlertDescription as Alert, Error as E};
    match error {
        E::InvalidCertificate(_) | E::PeerIncompatible(_) => true,
        // These are about what was damaged on the way, or about the server's own troubles (RFC 8446, section 6.2).
        E::AlertReceived(alert) => !matches!(
            alert,
            Alert::BadRecordMac
                | Alert::DecodeError
                | Alert::DecryptError
                | Alert::InternalError
                | Alert::UserCanceled
        ),
        _ => false,
    }
}

fn in_words(error: &rustls::Error, verifier: &Verifier) -> Error {
    use rustls::{AlertDescription as Alert, Error as E};
    let why = match error {
        E::InvalidCertificate(_) => {
            let finding = verifier.finding();
            if !finding.why.is_empty() {
                return failure(finding.problem, &finding.why);
            }
            "it does not prove that the certificate is its own (the signature is wrong, or its key too short)"
        }
        E::AlertReceived(Alert::ProtocolVersion) => OLD,
        E::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity) => {
            "it refuses the handshake: it takes none of what this program can do (TLS 1.2 and 1.3, ECDHE with AES-GCM or \
             ChaCha20), or wants a certificate of the client"
        }
        E::AlertReceived(Alert::CertificateRequired) => {
            "it wants a certificate of the client, which this program does not have"
        }
        E::AlertReceived(Alert::UnrecognisedName) => "it knows no server of this name",
        E::AlertReceived(alert) => {
            let why: Text<80> =
                crate::text!("it ended the connection with the alert {}", u8::from(*alert));
            return failure(Problem::Other, &why);
        }
        E::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => OLD,
        E::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => OLD,
        E::PeerIncompatible(_) => "it speaks TLS in a way that this program does not",
        E::InvalidMessage(_) => "what it sends is no TLS",
        E::DecryptError => "what it sent was changed on the way",
        E::FailedToGetCurrentTime => "this device has no clock",
        E::FailedToGetRandomBytes => "this kernel gives no random numbers",
        _ => "it breaks the rules of TLS",
    };
    failure(Problem::Other, why)
}

const OLD: &str = "it speaks only old protocols: TLS 1.2 at least is needed";

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription as Alert, Error as E};

    #[test]
    fn a_server_in_trouble_is_asked_again_and_one_that_says_no_is_not() {
        let passing = [Alert::BadRecordMac, Alert::DecodeError, Alert::InternalError];
        assert!(passing.iter().all(|alert| !is_final(&E::AlertReceived(*alert))));
        let no = [Alert::HandshakeFailure, Alert::ProtocolVersion, Alert::UnknownCA];
        assert!(no.iter().all(|alert| is_final(&E::AlertReceived(*alert))));
        assert!(
            is_final(&E::AlertReceived(Alert::UnrecognisedName)) && !is_final(&E::DecryptError)
        );
    }
}
