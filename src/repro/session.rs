//! One MySQL connection: greeting, login, questions, leave. The mysql crate hands out no socket
//! before the login and takes none, so that neither connect() could be timed by itself, nor a
//! source address be bound without a port, nor the FIN be sent first; and it has no bound on what a
//! server may send, or on how long.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql::consts::CapabilityFlags as Can;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, HandshakeResponse, SslRequest};

use super::auth::Plugin;
use super::cause::{Cause, Stage, TlsTrouble};
use super::tls::Tls;
use super::wire::{Exchange, Parting, Wire, greeting};

/// How a connection ends. Either way the client sends the first FIN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// Say COM_QUIT first, as client libraries do
    #[default]
    Quit,
    /// Close without a word, as an application that is killed; MySQL counts an aborted client
    Abrupt,
}

/// Who logs in.
#[derive(Clone, Copy, Default)]
pub(super) struct Account<'a> {
    pub user: Option<&'a str>,
    pub password: &'a str,
    pub database: Option<&'a str>,
    /// Hears when the password has been sent under a key that the server showed.
    pub under_shown_key: Option<&'a AtomicBool>,
}

/// A connection that is logged in.
pub(super) struct Session {
    wire: Wire,
}

/// What a client may send at once; any value does for a login.
const MAX_PACKET: u32 = 16 * 1024 * 1024;
const UTF8MB4: u8 = 45;
/// From this version on mysql_common asks for that: what the server calls itself may be no number.
const KNOWS_UTF8MB4: (u16, u16, u16) = (5, 5, 3);

/// An account of MariaDB can have several methods, each of which is asked for in turn.
const MOST_SWITCHES: usize = 16;

impl Session {
    /// Logs in over `tcp` as `account`, by TLS where there is any, before the `exchange` is over.
    ///
    /// # Errors
    /// Why not.
    pub fn login(
        tcp: TcpStream,
        account: Account<'_>,
        tls: Option<&Tls>,
        exchange: Exchange,
    ) -> Result<Self, Cause> {
        /// `ER_ACCESS_DENIED_ERROR`
        const DENIED: u16 = 1045;
        Self::enter(tcp, account, tls, exchange).map_err(|cause| match cause {
            Cause::Server(error) if error.code == DENIED && tls.is_some() => {
                Cause::DeniedUnderTls(error)
            }
            cause => cause,
        })
    }

    fn enter(
        tcp: TcpStream,
        account: Account<'_>,
        tls: Option<&Tls>,
        exchange: Exchange,
    ) -> Result<Self, Cause> {
        let mut wire = Wire::new(tcp, exchange);
        let packet = wire.read()?;
        let greeting = greeting(&packet)?;
        wire.stage = Stage::Login;
        let mut capabilities = Can::CLIENT_PROTOCOL_41
            | Can::CLIENT_SECURE_CONNECTION
            | Can::CLIENT_LONG_PASSWORD
            | Can::CLIENT_TRANSACTIONS
            | Can::CLIENT_PLUGIN_AUTH;
        if let Some(tls) = tls {
            if !greeting.capabilities().contains(Can::CLIENT_SSL) {
                return Err(Cause::Tls(TlsTrouble::NotOffered));
            }
            capabilities |= Can::CLIENT_SSL;
            wire.write_struct(&SslRequest::new(capabilities, MAX_PACKET, UTF8MB4))?;
            wire = wire.encrypt(tls)?;
        }

        let mut nonce = greeting.scramble_1_ref().to_vec();
        nonce.extend(greeting.scramble_2_ref().unwrap_or_default());
        // For any other the server asks again.
        let first = greeting.auth_plugin_name_ref().map(Plugin::named);
        let mut plugin = match first {
            Some(Ok(Plugin::CachingSha2)) => Plugin::CachingSha2,
            _ => Plugin::Native,
        };
        let password = account.password;
        let answer = plugin.answer(password, &nonce, wire.is_encrypted());
        // Without a password there is no proof, not even an empty one.
        let answer = Some(answer).filter(|_| !password.is_empty());
        wire.write_struct(&HandshakeResponse::new(
            answer,
            KNOWS_UTF8MB4,
            account.user.map(str::as_bytes),
            account.database.map(str::as_bytes),
            Some(AuthPlugin::from_bytes(plugin.name().as_bytes())),
            capabilities,
            None,
            MAX_PACKET,
        ))?;

        // Of each method a server asks one thing more at most.
        let (mut switches, mut proved) = (0, false);
        loop {
            let packet = wire.read()?;
            match packet.as_slice() {
                [0x00, ..] => return Ok(Self { wire }),
                [0xfe] => return Err(Cause::Plugin("mysql_old_password".into())),
                [0xfe, request @ ..] if switches < MOST_SWITCHES => {
                    switches += 1;
                    proved = false;
                    let mut parts = request.splitn(2, |byte| *byte == 0);
                    plugin = Plugin::named(parts.next().unwrap_or_default())?;
                    nonce = parts.next().unwrap_or_default().to_vec();
                    wire.write(&plugin.answer(password, &nonce, wire.is_encrypted()))?;
                }
                // The first releases of parsec send its salt without the 1.
                [0x01, more @ ..] | more if !proved => {
                    proved = true;
                    let under_shown_key = plugin.go_on(&mut wire, more, password, &nonce)?;
                    if let Some(told) = account.under_shown_key.filter(|_| under_shown_key) {
                        told.store(true, Ordering::Relaxed);
                    }
                }
                _ => return Err(Cause::NotMysql),
            }
        }
    }

    /// Asks the server: the rows of its answer, each the texts of its first two columns; none where
    /// it answers without any.
    ///
    /// # Errors
    /// Where it says no, or not in time, or too much.
    pub fn ask(&mut self, sql: &str, exchange: Exchange) -> Result<Vec<[String; 2]>, Cause> {
        const COM_QUERY: u8 = 3;
        /// More than any question here has.
        const MOST_COLUMNS: u64 = 16;
        let wire = &mut self.wire;
        wire.begin(exchange, Stage::Question);
        wire.write(&[&[COM_QUERY], sql.as_bytes()].concat())?;
        let head = wire.read()?;
        let columns = match head.as_slice() {
            [0x00, ..] => return Ok(Vec::new()),
            head => ParseBuf(head).checked_eat_lenenc_int(),
        };
        let columns = columns.filter(|columns| (1..=MOST_COLUMNS).contains(columns));
        for _ in 0..columns.ok_or(Cause::NotMysql)? {
            wire.read()?;
        }
        if !is_end(&wire.read()?) {
            return Err(Cause::NotMysql);
        }
        // What may be read in one exchange is the bound on them.
        let mut rows = Vec::new();
        loop {
            let packet = wire.read()?;
            if is_end(&packet) {
                return Ok(rows);
            }
            let mut row = ParseBuf(&packet);
            let mut text = || {
                let bytes = row.checked_eat_lenenc_str().unwrap_or_default();
                String::from_utf8_lossy(bytes).into_owned()
            };
            rows.push([text(), text()]);
        }
    }

    /// Takes leave and closes first: whether the server had closed before, or has reset it.
    pub fn leave(self, close: Close) -> bool {
        let parting = self.wire.part(farewell(close));
        parting.linger(None) || parting.was_closed
    }

    /// The same without a wait.
    pub fn part(self) -> Parting {
        self.wire.part(farewell(Close::Quit))
    }

    /// The same, and waits a moment until the server has closed too.
    pub fn leave_for_good(self) {
        /// A busy server takes some milliseconds.
        const MOMENT: Duration = Duration::from_secs(1);
        self.part().linger(Some(MOMENT));
    }
}

fn farewell(close: Close) -> &'static [u8] {
    const COM_QUIT: [u8; 5] = [1, 0, 0, 0, 1];
    match close {
        Close::Quit => &COM_QUIT,
        Close::Abrupt => &[],
    }
}

/// Whether it is the `EOF_Packet` between the parts of an answer.
fn is_end(packet: &[u8]) -> bool {
    packet[0] == 0xfe && packet.len() < 9
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, JoinHandle};
    use std::time::Instant;

    use super::*;

    const NONCE_SENT: &[u8; 20] = b"abcdefghijklmnopqrst";
    /// `openssl genrsa 2048 | openssl rsa -pubout`
    const KEY: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAj1njln+TOOhM2g/i7rk8
aHftgWT+ZkYZuGNaUpIrW53qUNSBIPj11L3EuZiaDlL9mVKtT8iKfqus4Hq9typu
ViEKXbtQqQesmt/qq2qfQgK7Wxf9fkbiOvc8twgQDvpZqEGvj2JaKTU2NnpSKDCQ
Sgc4TPp7FPcV1r05xPAKI36uS5Lpl2XXpJ7YlzTPWCwJxTE8NdwBD44x9LJrCoOK
sK6CBZWG3gKaa5pGuIdHhY1qInbVm4FTlVoKGEsXXE2bL07a7AO0pzOFsj6xrncG
z9Vn0xaiCve84NeRs922BvtIGUpke91H3kE/Gsd9lJO28DrDRYJgGBXtKixX5+/R
oQIDAQAB
-----END PUBLIC KEY-----
";
    const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
    const EOF: [u8; 5] = [0xfe, 0, 0, 2, 0];
    /// SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce), by Python's hashlib.
    const PROOF: [u8; 32] = [
        0x9e, 0xab, 0xc4, 0x26, 0xd7, 0xdd, 0x6e, 0xcb, 0x62, 0x09, 0xbc, 0x00, 0x3c, 0xb1, 0x4a,
        0xcd, 0x5e, 0xf6, 0x53, 0x8f, 0x68, 0xad, 0x98, 0x68, 0x13, 0x7d, 0xa9, 0x32, 0x5a, 0x5e,
        0x69, 0x28,
    ];

    /// What a server does in turn.
    #[derive(Clone)]
    enum Step {
        /// It says this packet.
        Say(Vec<u8>),
        /// It hears one.
        Hear,
    }

    /// What it does instead, at one byte of what it says, or of what it hears.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Deed {
        Close,
        Reset,
        Stall,
        /// It says this byte in place of another, and goes on.
        Lie(u8),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Direction {
        Saying,
        Hearing,
    }

    fn greeting_sent() -> Vec<u8> {
        let mut greeting = b"\x0a8.0.36\0\x01\0\0\0".to_vec();
        greeting.extend(&NONCE_SENT[..8]);
        let capabilities =
            (Can::CLIENT_PROTOCOL_41 | Can::CLIENT_SECURE_CONNECTION | Can::CLIENT_PLUGIN_AUTH)
                .bits()
                .to_le_bytes();
        greeting.push(0);
        greeting.extend([capabilities[0], capabilities[1], UTF8MB4, 2, 0]);
        greeting.extend([capabilities[2], capabilities[3], 21]);
        greeting.extend([0; 10]);
        greeting.extend(&NONCE_SENT[8..]);
        greeting.extend(b"\0caching_sha2_password\0");
        greeting
    }

    /// Each of `answers` after one packet of the client.
    fn script(answers: &[&[u8]]) -> Vec<Step> {
        let mut steps = vec![Step::Say(greeting_sent())];
        for answer in answers {
            steps.push(Step::Hear);
            steps.push(Step::Say(answer.to_vec()));
        }
        steps
    }

    fn switch(plugin: &str, nonce: &[u8]) -> Vec<u8> {
        [&[0xfe], plugin.as_bytes(), &[0], nonce].concat()
    }

    /// A column as a result has it: nobody looks at it.
    const COLUMN: &[u8] = b"\x03def\0\0\0\x01c\0\x0c\x21\0\0\x01\0\0\xfd\0\0\0\0\0";

    /// Every conversation that a login and one question can be.
    fn conversations() -> Vec<(&'static str, Vec<Step>)> {
        let key = [&[1], KEY].concat();
        let salt = [&b"\x01P\0"[..], &[7; 18]].concat();
        let native = switch("mysql_native_password", &NONCE_SENT[..]);
        let sha256 = switch("sha256_password", &NONCE_SENT[..]);
        let ed25519 = switch("client_ed25519", &[9; 32]);
        let parsec = switch("parsec", &[9; 32]);
        let fast = Vec::from([1, 3]);
        let row = b"\x11Threads_connected\x011".to_vec();
        let mut all = vec![
            ("native", script(&[&native, &OK])),
            ("full", script(&[&[1, 4], &key, &OK])),
            ("sha256", script(&[&sha256, &key, &OK])),
            ("ed25519", script(&[&ed25519, &OK])),
            ("parsec", script(&[&parsec, &salt, &OK])),
            ("several", script(&[&parsec, &salt, &ed25519, &native, &OK])),
        ];
        let mut asked = script(&[&fast]);
        asked.push(Step::Say(OK.to_vec()));
        asked.push(Step::Hear);
        for packet in [&[2][..], COLUMN, COLUMN, &EOF, &row, &EOF] {
            asked.push(Step::Say(packet.to_vec()));
        }
        all.push(("question", asked));
        all
    }

    /// A server of this script, which does the `deed` at byte `at`; what it has heard.
    fn serve(
        steps: Vec<Step>,
        fault: Option<(Direction, usize, Deed)>,
    ) -> (SocketAddr, JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut heard = Vec::new();
            let _ = follow(&mut tcp, &steps, fault, &mut heard);
            heard
        });
        (address, server)
    }

    fn follow(
        tcp: &mut TcpStream,
        steps: &[Step],
        fault: Option<(Direction, usize, Deed)>,
        heard: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let (mut said, mut read, mut sequence) = (0, 0, 0_u8);
        let fault_in = |direction, from: usize, length: usize| {
            fault.and_then(|(way, at, deed)| {
                let within = way == direction && (from..from + length).contains(&at);
                within.then(|| (at - from, deed))
            })
        };
        for step in steps {
            match step {
                Step::Say(payload) => {
                    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
                    let start = [length[0], length[1], length[2], sequence];
                    let mut packet = [&start, payload.as_slice()].concat();
                    sequence += 1;
                    match fault_in(Direction::Saying, said, packet.len()) {
                        Some((at, Deed::Lie(byte))) => packet[at] = byte,
                        Some((at, deed)) => {
                            tcp.write_all(&packet[..at])?;
                            return end(tcp, deed);
                        }
                        None => {}
                    }
                    said += packet.len();
                    tcp.write_all(&packet)?;
                }
                Step::Hear => {
                    let mut header = [0; 4];
                    if let Some((at, deed)) = fault_in(Direction::Hearing, read, 4) {
                        tcp.read_exact(&mut header[..at])?;
                        return end(tcp, deed);
                    }
                    tcp.read_exact(&mut header)?;
                    sequence = header[3].wrapping_add(1);
                    let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
                    if let Some((at, deed)) = fault_in(Direction::Hearing, read + 4, payload.len())
                    {
                        tcp.read_exact(&mut payload[..at])?;
                        return end(tcp, deed);
                    }
                    tcp.read_exact(&mut payload)?;
                    read += 4 + payload.len();
                    heard.push(payload);
                }
            }
        }
        // Until the client is gone.
        io::copy(tcp, &mut io::sink()).map(|_| ())
    }

    fn end(tcp: &mut TcpStream, deed: Deed) -> io::Result<()> {
        match deed {
            // Until the client is gone.
            Deed::Stall => drop(io::copy(tcp, &mut io::sink())),
            Deed::Reset => socket2::SockRef::from(&*tcp).set_linger(Some(Duration::ZERO))?,
            Deed::Close | Deed::Lie(_) => {}
        }
        Ok(())
    }

    const PATIENCE: Duration = Duration::from_millis(100);
    const APP: Account = Account {
        user: Some("app"),
        password: "correct horse",
        database: None,
        under_shown_key: None,
    };

    /// A login, and a question after it where there is to be one.
    fn talk(server: SocketAddr, asks: bool, patience: Duration) -> Result<Vec<[String; 2]>, Cause> {
        let tcp = TcpStream::connect(server).unwrap();
        let mut session = Session::login(tcp, APP, None, Exchange::within(patience))?;
        let answer = if asks {
            session.ask("SHOW", Exchange::within(patience))
        } else {
            Ok(Vec::new())
        };
        session.leave(Close::Quit);
        answer
    }

    fn login(server: SocketAddr) -> Result<(), Cause> {
        talk(server, false, Duration::from_secs(5)).map(|_| ())
    }

    #[test]
    fn a_password_that_mysql_8_has_cached_is_proved_by_its_hash() {
        let mut steps = script(&[&[1, 3]]);
        steps.push(Step::Say(OK.to_vec()));
        let (server, heard) = serve(steps, None);
        login(server).unwrap();
        let heard = heard.join().unwrap();
        let proved = heard[0].windows(PROOF.len()).any(|part| part == PROOF);
        assert!(proved, "{:x?}", heard[0]);
    }

    #[test]
    fn a_password_that_mysql_8_has_not_cached_is_sent_under_its_key() {
        let key = [&[1], KEY].concat();
        let (server, heard) = serve(script(&[&[1, 4], &key, &OK]), None);
        login(server).unwrap();
        let heard = heard.join().unwrap();
        assert_eq!(heard[1], [2], "request_public_key");
        assert_eq!(heard[2].len(), 256, "RSA of 2,048 bits");
    }

    #[test]
    fn a_server_that_asks_for_method_after_method_is_left() {
        let native = switch("mysql_native_password", &NONCE_SENT[..]);
        let (server, heard) = serve(script(&vec![native.as_slice(); 40]), None);
        assert_eq!(login(server), Err(Cause::NotMysql));
        assert_eq!(heard.join().unwrap().len(), 17, "the first, and 16 more");
    }

    #[test]
    fn a_plugin_that_is_not_spoken_is_named() {
        for plugin in ["auth_gssapi_client", "dialog", "mysql_clear_password", ""] {
            let (server, _) = serve(script(&[&switch(plugin, b"x")]), None);
            assert_eq!(login(server), Err(Cause::Plugin(plugin.into())));
        }
        let (server, _) = serve(script(&[&[0xfe]]), None);
        assert_eq!(
            login(server),
            Err(Cause::Plugin("mysql_old_password".into()))
        );
    }

    /// 4,096 bits, 512 bits, an even modulus, half of one, and no key at all.
    #[test]
    fn a_key_that_the_password_does_not_fit_under_is_told_and_no_panic() {
        let short = b"-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK0Gn4B5vOHcTKPUhQlX2N6wnZ1Kb6Fh
m7kKW4J4b0jXz2nIhXoiN0e+oQYyO0F8WUSvVYnP8p4Y7xXy5q4p6zkCAwEAAQ==
-----END PUBLIC KEY-----
";
        let half = &KEY[..200];
        for (key, said) in [
            (KEY, "room for 213"),
            (&short[..], "weak, with 512 bits"),
            (half, "malformed"),
            (b"", "malformed"),
            (
                b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                "malformed",
            ),
        ] {
            let key = [&[1], key].concat();
            let (server, _) = serve(script(&[&[1, 4], &key, &OK]), None);
            let password = "x".repeat(214);
            let account = Account {
                password: &password,
                ..APP
            };
            let tcp = TcpStream::connect(server).unwrap();
            let exchange = Exchange::within(Duration::from_secs(5));
            match Session::login(tcp, account, None, exchange) {
                Err(Cause::Unsendable(why)) => assert!(why.contains(said), "{why}"),
                other => panic!("{said}: {:?}", other.err()),
            }
        }
    }

    /// A server that closes, resets, stalls or lies at each byte of each login, in both directions:
    /// the client comes back in time, and without a panic.
    #[test]
    fn no_server_holds_a_login_up_or_breaks_it_whatever_it_does_at_which_byte() {
        const WORKERS: usize = 32;
        /// One stall in so many bytes.
        const STALLS: usize = 5;
        /// This machine may be busy.
        const SLACK: Duration = Duration::from_secs(2);
        let mut table = Vec::new();
        for (name, steps) in conversations() {
            let (server, heard) = serve(steps.clone(), None);
            let asks = name == "question";
            let fine = talk(server, asks, Duration::from_secs(5));
            let heard: usize = heard
                .join()
                .unwrap()
                .iter()
                .map(|said| said.len() + 4)
                .sum();
            if asks {
                let row = ["Threads_connected".to_owned(), "1".to_owned()];
                assert_eq!(fine, Ok(vec![row]));
            }
            let said: usize = steps
                .iter()
                .map(|step| match step {
                    Step::Say(packet) => packet.len() + 4,
                    Step::Hear => 0,
                })
                .sum();
            for at in 0..said {
                let lies = [0x00, 0xff].map(Deed::Lie);
                let ends = [Deed::Close, Deed::Reset];
                for deed in lies.into_iter().chain(ends) {
                    table.push((name, steps.clone(), Direction::Saying, at, deed));
                }
                // Each takes the client's whole patience.
                if at % STALLS == 0 {
                    table.push((name, steps.clone(), Direction::Saying, at, Deed::Stall));
                }
            }
            for at in 0..heard {
                for deed in [Deed::Close, Deed::Reset, Deed::Stall] {
                    if deed == Deed::Stall && at % STALLS != 0 {
                        continue;
                    }
                    table.push((name, steps.clone(), Direction::Hearing, at, deed));
                }
            }
        }
        let next = AtomicUsize::new(0);
        let tried = thread::scope(|scope| {
            let work = || {
                let mut tried = 0;
                while let Some((name, steps, direction, at, deed)) =
                    table.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    let (server, _) = serve(steps.clone(), Some((*direction, *at, *deed)));
                    let said = talk(server, *name == "question", PATIENCE);
                    let took = begun.elapsed();
                    let what = format!("{name}: {direction:?} {at}, {deed:?}: {said:?}");
                    assert!(took < 2 * PATIENCE + SLACK, "{took:?} {what}");
                    match deed {
                        Deed::Stall => assert!(matches!(said, Err(Cause::Slow { .. })), "{what}"),
                        Deed::Close | Deed::Reset => assert!(said.is_err(), "{what}"),
                        Deed::Lie(_) => {}
                    }
                    tried += 1;
                }
                tried
            };
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .sum::<usize>()
        });
        assert_eq!(tried, table.len());
    }

    #[test]
    fn a_byte_now_and_then_is_no_way_to_go_on_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                for byte in b"\x4a\0\0\0\x0a8.0.36\0".iter().chain(&[b'A'; 200]) {
                    if client.write_all(&[*byte]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        let begun = Instant::now();
        let said = talk(server, false, PATIENCE);
        assert!(begun.elapsed() < 20 * PATIENCE, "{:?}", begun.elapsed());
        assert!(
            matches!(said, Err(Cause::Slow { stage: Stage::Greeting, after }) if after >= PATIENCE),
            "{said:?}"
        );
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let said = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut steps = script(&[&OK]);
            steps.push(Step::Hear);
            for packet in [&[2][..], COLUMN, COLUMN, &EOF] {
                steps.push(Step::Say(packet.to_vec()));
            }
            let mut heard = Vec::new();
            let mut said = 0_usize;
            // `follow` ends with the client; this one goes on talking.
            let talker = tcp.try_clone().unwrap();
            let follower = thread::spawn(move || drop(follow(&mut tcp, &steps, None, &mut heard)));
            thread::sleep(Duration::from_millis(200));
            let row = [
                &[0x62, 0xea, 0, 0][..],
                &[0xfd, 0x60, 0xea, 0],
                &vec![b'A'; 60_000],
            ]
            .concat();
            let row = [row, b"\x011".to_vec()].concat();
            while (&talker).write_all(&row).is_ok() {
                said += row.len();
            }
            drop(follower);
            said
        });
        let told = talk(server, true, Duration::from_secs(5));
        assert_eq!(told, Err(Cause::NotMysql));
        // What the kernel holds for the client is the rest.
        let said = said.join().unwrap();
        assert!(said < 16 * 1024 * 1024, "{said}");
    }
}
