//! A server for the tests of this room: it answers as the test says, on loopback, and notes what it was asked.

use super::client::{Client, Patience, Settings};
use super::url::Url;
use crate::error::Error;
use crate::text::Text;
use core::time::Duration;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a server does with a request: these bytes, then whether it keeps the connection.
pub type Answer = (Vec<u8>, bool);

/// A server. Its thread ends with the process.
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request by what `answer` makes of its number, from 0, and its text, bodies included. A connection
    /// has a thread of its own: a client may keep an idle one.
    pub fn start(answer: impl FnMut(usize, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let answer = Arc::new(Mutex::new(answer));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                std::thread::spawn(move || converse(connection.unwrap(), &answer, &noted));
            }
        });
        Self { port, seen }
    }

    /// Gives these answers, one to each request; the connection ends after each that says so.
    pub fn of(answers: &[&str]) -> Self {
        let answers: Vec<_> = answers.iter().map(|text| text.to_string()).collect();
        Self::start(move |number, _| {
            let text = answers.get(number).cloned().unwrap_or_default();
            let keeps_open = !text.is_empty() && !text.contains("close");
            (text.into_bytes(), keeps_open)
        })
    }

    /// A URL of it.
    pub fn url(&self, target: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{target}", self.port)).unwrap()
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn converse(
    connection: TcpStream,
    answer: &Mutex<impl FnMut(usize, &str) -> Answer>,
    noted: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(&connection);
    while let Some(request) = read_request(&mut reader) {
        let number = {
            let mut noted = noted.lock().unwrap();
            noted.push(request.clone());
            noted.len() - 1
        };
        let (bytes, keeps_open) = (answer.lock().unwrap())(number, &request);
        // The client may have gone.
        let _ = (&connection).write_all(&bytes);
        if !keeps_open {
            break;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if reader.read_line(&mut text).ok()? == 0 {
            return None;
        }
    }
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(text + std::str::from_utf8(&body).unwrap())
}

/// One that waits no longer than a test may take.
pub fn patience() -> Patience {
    Patience { attempts: 3, pause: Duration::from_millis(1), ..Patience::default() }
}

pub fn client() -> Client {
    Client::new(Settings { patience: patience(), ..Settings::default() }).unwrap()
}

pub fn shown(error: &Error) -> String {
    let text: Text<512> = crate::text!("{}", error);
    text.to_string()
}
