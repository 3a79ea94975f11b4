//! Looks whether a server is MySQL, at no cost to this host: MySQL counts connections that break
//! off before the login, and blocks the host after `max_connect_errors` of them (error 1129). A
//! login that it denies is not counted so.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use mysql::consts::CapabilityFlags as Can;

use super::session::{Account, Session};
use super::tls::{Tls, TlsMode, TlsWish};
use super::wire::{Exchange, HEADER, greeting};

/// Who is denied there, and shows in the server's log.
pub const NOBODY: &str = "twcheck";

/// How long MySQL may take to greet: it looks up the name of a host that it does not know yet, and
/// a resolver asks twice for 5 s each where nobody answers (resolv.conf(5)).
pub(super) const LONGEST: Duration = Duration::from_secs(11);

/// How a server greets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greets {
    /// As MySQL does.
    LikeMysql,
    /// Otherwise: it says something else, or closes.
    Otherwise,
    /// Not yet: it waits for the client's word, or it is MySQL and looks up this host's name.
    NotYet,
}

/// How the server at the other end of `tcp` greets within `patience`. From MySQL it takes leave: it
/// logs in as [`NOBODY`], is denied or let in, and quits.
pub(super) fn look(tcp: TcpStream, patience: Duration) -> Greets {
    /// How long the login may take behind the greeting.
    const LOGIN: Duration = Duration::from_secs(10);
    let Some(first) = first_bytes(&tcp, patience) else {
        return Greets::NotYet;
    };
    if !greets_like_mysql(&first) {
        return Greets::Otherwise;
    }
    // MariaDB counts it where it insists on TLS and gets none.
    let tls = offers_tls(&first).then(|| unverified(&tcp)).flatten();
    let nobody = Account {
        user: Some(NOBODY),
        ..Account::default()
    };
    if let Ok(session) = Session::login(tcp, nobody, tls.as_ref(), Exchange::within(LOGIN)) {
        session.leave_for_good();
    }
    Greets::LikeMysql
}

/// What the server says by itself, left where it is; `None` where it says too little in time.
fn first_bytes(tcp: &TcpStream, patience: Duration) -> Option<Vec<u8>> {
    /// They nearly always come in one piece.
    const NAP: Duration = Duration::from_millis(10);
    /// Enough to tell what it is.
    const LEAST: usize = 5;
    let end = Instant::now() + patience;
    let mut first = [0; 512];
    let mut length = 0;
    while length < LEAST {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || tcp.set_read_timeout(Some(left)).is_err() {
            return None;
        }
        match tcp.peek(&mut first) {
            Ok(more) if more > length => length = more,
            // It is there still, but no more of it.
            Ok(more) if more > 0 => thread::sleep(NAP),
            // A process that was stopped and goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Ok(_) | Err(_) => break,
        }
    }
    Some(first[..length].to_vec())
}

/// Whether the greeting, where it came in one piece, offers TLS.
fn offers_tls(first: &[u8]) -> bool {
    let packet = first.get(HEADER..).unwrap_or_default();
    greeting(packet).is_ok_and(|greeting| greeting.capabilities().contains(Can::CLIENT_SSL))
}

/// TLS with whoever it is.
fn unverified(tcp: &TcpStream) -> Option<Tls> {
    let wish = TlsWish {
        mode: TlsMode::Required,
        ..TlsWish::default()
    };
    Tls::new(&tcp.peer_addr().ok()?.ip().to_string(), &wish).ok()
}

/// Whether a server that begins with these bytes speaks MySQL: a greeting of protocol 10, or an
/// error in its place.
fn greets_like_mysql(first: &[u8]) -> bool {
    const PROTOCOL_10: u8 = 10;
    const ERROR: u8 = 0xff;
    matches!(first, [_, _, 0, 0, PROTOCOL_10 | ERROR, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mysql_greets_like_mysql() {
        assert!(greets_like_mysql(b"\x4a\0\0\0\x0a8.0.36\0"));
        assert!(greets_like_mysql(b"\x45\0\0\0\xff\x69\x04Host"));
        for other in [
            &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
            b"220 mail\r\n",
            b"",
            b"\x4a\0\0",
        ] {
            assert!(!greets_like_mysql(other), "{other:?}");
        }
    }
}
