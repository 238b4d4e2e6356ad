//! Telling the server that stage 1 has named how it ended: best effort, over the addresses and routes that the kernel
//! still has, and never a reason not to restart.
//!
//! A child does it, with a limit after which it is killed: so nothing of the network can hang PID 1 or harm it. Nothing
//! of the old root is needed: addresses, proxy and roots are in the file that stage 1 has left.

use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::net::client::{Client, Known, Method, Patience, Request, Settings};
use crate::net::deadline::Deadline;
use crate::net::proxy::Proxies;
use crate::net::trust::Trust;
use crate::net::url::Url;
use crate::notice::{self, Notice};
use crate::plan::names;
use crate::progress::{Kept, Shared};
use crate::sys::{map, process};
use crate::text::Text;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use rustix::process::{Pid, Signal, WaitOptions};

/// How long it may take over all, in milliseconds.
const LIMIT: u64 = 20_000;
/// How long a killed child may take to end, in milliseconds.
const DEATH: u64 = 1000;
/// After this the client itself gives up, early enough to say why.
const END: Duration = Duration::from_millis(LIMIT - 2000);
/// How long each step may take.
const STEP: Duration = Duration::from_secs(8);

/// True when stage 1 has left something to send.
pub fn is_wanted() -> bool {
    files::exists(&path())
}

fn path() -> crate::text::PathText {
    // Our own short names always fit.
    crate::path!("/{}", names::NOTICE).unwrap_or_default()
}

/// Sends what there is for this end, if there is something; `meanwhile` is called again and again.
pub fn send(is_done: bool, shared: &Shared, meanwhile: &mut dyn FnMut()) {
    if !is_wanted() {
        return;
    }
    let path = path();
    let child = process::spawn(|| match send_file(&path, is_done) {
        Ok(true) => 0,
        Ok(false) => NOTHING,
        Err(error) => {
            crate::warn!("could not report: {}", error);
            1
        }
    });
    let code = match child.doing("starting", "a process that reports") {
        Ok(child) => wait(child, LIMIT, meanwhile),
        Err(error) => {
            crate::warn!("could not report: {}", error);
            Some(1)
        }
    };
    if code == Some(NOTHING) {
        crate::info!("the API is told nothing of this end");
        return;
    }
    let state = if code == Some(0) { Kept::Yes } else { Kept::Failed };
    shared.report.store(state as u32, SeqCst);
    match code {
        Some(0) => crate::info!("the outcome was reported to the API"),
        // It has said why.
        Some(1) => {}
        Some(_) => crate::warn!("could not report: the process that does it has died"),
        None => crate::warn!("could not report: it took longer than {} s", LIMIT / 1000),
    }
}

/// The exit code of a child, or -1 when a signal has ended it; nothing when it did not end in so many milliseconds, and
/// was killed.
fn wait(child: Pid, limit: u64, meanwhile: &mut dyn FnMut()) -> Option<i32> {
    let watch = Stopwatch::start();
    let mut is_killed = false;
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(None) => {}
            Ok(Some((_, status))) if !is_killed => return Some(status.exit_status().unwrap_or(-1)),
            // An error: there is no such child.
            _ => return None,
        }
        let elapsed = watch.elapsed();
        if !is_killed && elapsed > limit {
            // It listens as soon as the kernel lets it.
            let _ = rustix::process::kill_process(child, Signal::KILL);
            is_killed = true;
        }
        if elapsed > limit + DEATH {
            return None;
        }
        meanwhile();
        crate::sys::clock::sleep(Duration::from_millis(20));
    }
}

/// The exit code of the child where there is nothing to tell.
const NOTHING: i32 = 2;

/// False where there was nothing to send.
fn send_file(path: &str, is_done: bool) -> Result<bool, Error> {
    let buffer = map::buffer(notice::MAX).doing("reserving memory for", path)?;
    let bytes: &'static [u8] = files::read(path, buffer).doing("reading", path)?;
    let broken = || Error::failed("reading", path, "it is not what stage 1 wrote");
    let notice = Notice::read(bytes).ok_or_else(broken)?;
    send_notice(&notice, is_done, Deadline::after(END))
}

fn send_notice(notice: &Notice<'static>, is_done: bool, end: Deadline) -> Result<bool, Error> {
    let url = Url::parse(notice.url)?;
    let mut client = Client::new(settings(notice, end))?;
    let bodies = if is_done { notice.done } else { [&[], notice.failed] };
    // One that fails is no reason to keep the others back.
    let mut result = Ok(false);
    for body in bodies.into_iter().filter(|body| !body.is_empty()) {
        let answer = client.send(&Request {
            method: Method::Patch,
            url: &url,
            bearer: Some(notice.bearer),
            from: None,
            unless_changed: None,
            body: Some(body),
        });
        let sent = answer.and_then(|response| response.expect_success("reporting to", &url));
        result = result.and(sent.map(|()| true));
    }
    result
}

fn settings(notice: &Notice<'static>, end: Deadline) -> Settings {
    let proxy = Some(notice.proxy).filter(|proxy| !proxy.is_empty());
    let mut known = Known { host: Text::from(notice.host), ..Known::default() };
    for address in notice.addresses() {
        // As many as a name has at most.
        let _ = known.addresses.push(address);
    }
    let mut settings = Settings {
        proxies: Proxies { http: proxy, https: proxy, none_for: None },
        trust: Trust { extra: notice.roots, file: "", only_these: true },
        patience: Patience { connect: STEP, first_byte: STEP, stall: STEP, ..Patience::default() },
        known,
    };
    settings.patience.attempts = 3;
    settings.patience.end = Some(end);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_child_that_does_not_end_is_killed_and_what_waits_goes_on() {
        let spawn = |work: fn() -> i32| process::spawn(work).unwrap();
        let mut turns = 0;
        let hanging = spawn(|| {
            loop {
                crate::sys::clock::sleep(Duration::from_secs(1));
            }
        });
        assert_eq!(wait(hanging, 1, &mut || turns += 1), None);
        assert!(turns > 0, "watchdogs are to be fed meanwhile");
        assert!(rustix::process::test_kill_process(hanging).is_err(), "it is still there");
        assert_eq!(wait(spawn(|| 0), LIMIT, &mut || ()), Some(0));
        assert_eq!(wait(spawn(|| 7), LIMIT, &mut || ()), Some(7));
        let killed = spawn(|| {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
            0
        });
        assert_eq!(wait(killed, LIMIT, &mut || ()), Some(-1));
    }

    /// Answers so many requests with this status, each over a connection of its own; gives what was asked, fewer when
    /// none comes for a while.
    fn serve(listener: &TcpListener, count: usize, status: &str) -> Vec<String> {
        let mut asked = Vec::new();
        for _ in 0..count {
            let end = std::time::Instant::now() + Duration::from_secs(20);
            let mut connection = loop {
                match listener.accept() {
                    Ok((connection, _)) => break connection,
                    Err(_) if std::time::Instant::now() < end => {
                        crate::sys::clock::sleep(Duration::from_millis(2))
                    }
                    Err(_) => return asked,
                }
            };
            connection.set_nonblocking(false).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut piece = [0; 1000];
                let count = connection.read(&mut piece).unwrap();
                assert!(count > 0, "the request ends early");
                request.extend(&piece[..count]);
            }
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).unwrap();
            asked.push(String::from_utf8(request).unwrap());
        }
        asked
    }

    /// What is asked of a server that answers so, and what becomes of it. The name is one that nobody could resolve.
    fn report(
        is_done: bool,
        count: usize,
        status: &'static str,
    ) -> (Vec<String>, Result<bool, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || serve(&listener, count, status));
        let url = format!("http://api.invalid:{port}/v7/device(uuid=%27ab%27)").leak();
        let addresses = notice::bytes_of("127.0.0.1".parse().unwrap()).to_vec().leak();
        let notice = Notice {
            url,
            bearer: "sEcReT",
            host: "api.invalid",
            addresses,
            done: [b"{\"changed\":1}", b"{\"done\":1}"],
            failed: b"{\"failed\":1}",
            ..Notice::default()
        };
        let result = send_notice(&notice, is_done, Deadline::after(END)).map_err(|error| {
            let text: Text<500> = crate::text!("{}", error);
            assert!(!text.contains("sEcReT"));
            text.to_string()
        });
        (server.join().unwrap(), result)
    }

    #[test]
    fn what_stage_1_has_left_for_this_end_is_sent_and_no_name_is_resolved() {
        let (asked, result) = report(true, 2, "200 OK");
        assert_eq!(result, Ok(true));
        for (request, body) in asked.iter().zip(["{\"changed\":1}", "{\"done\":1}"]) {
            assert!(
                request.starts_with("PATCH /v7/device(uuid=%27ab%27) HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("Authorization: Bearer sEcReT\r\n"), "{request}");
            assert!(request.ends_with(body), "{request}");
        }
        let (asked, result) = report(false, 1, "200 OK");
        assert_eq!(result, Ok(true));
        assert!(asked[0].ends_with("{\"failed\":1}"), "{}", asked[0]);
    }

    #[test]
    fn where_there_is_nothing_to_tell_nothing_is_said_to_have_been_told() {
        let notice = Notice { url: "http://127.0.0.1:1/", done: [b"1", b"2"], ..Notice::default() };
        let sent = send_notice(&notice, false, Deadline::after(END));
        assert!(!sent.unwrap_or(true));
    }

    #[test]
    fn a_request_that_is_refused_keeps_the_next_one_from_nobody() {
        let (asked, result) = report(true, 2, "401 Unauthorized");
        assert!(asked[1].ends_with("{\"done\":1}"));
        assert!(result.unwrap_err().contains("401"));
    }

    #[test]
    fn stage_2_believes_what_stage_1_has_found_and_nothing_else() {
        let addresses = notice::bytes_of("2001:db8::1".parse().unwrap()).to_vec().leak();
        let (roots, proxy) = (b"PEM", "http://proxy:3128");
        let notice = Notice { host: "proxy", addresses, proxy, roots, ..Notice::default() };
        let settings = settings(&notice, Deadline::after(END));
        assert!(settings.trust.only_these && settings.trust.file.is_empty());
        assert_eq!(settings.trust.extra, roots);
        assert_eq!((settings.proxies.http, settings.proxies.https), (Some(proxy), Some(proxy)));
        assert_eq!(&*settings.known.host, "proxy");
        assert_eq!(
            settings.known.addresses[..],
            ["2001:db8::1".parse::<core::net::IpAddr>().unwrap()]
        );
        assert!(settings.patience.end.is_some());
    }
}
