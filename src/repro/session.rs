//! One MySQL connection: greeting, login, questions, leave. The mysql crate hands out no socket
//! before the login and takes none, so that neither connect() could be timed by itself, nor a
//! source address be bound without a port, nor the FIN be sent first; and it has no bound on what a
//! server may send, or on how long.

use std::net::TcpStream;

use mysql::consts::CapabilityFlags as Can;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, HandshakePacket, HandshakeResponse, SslRequest};

use super::auth::Plugin;
use super::cause::{Cause, Stage, TlsTrouble};
use super::tls::Tls;
use super::wire::{Exchange, Wire, parse};

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
}

/// A connection that is logged in.
pub(super) struct Session {
    wire: Wire,
    /// The server's number of it.
    pub id: u32,
}

/// What a client may send at once; any value does for a login.
const MAX_PACKET: u32 = 16 * 1024 * 1024;
const UTF8MB4: u8 = 45;

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
        const PROTOCOL: u8 = 10;
        let mut wire = Wire::new(tcp, exchange);
        let packet = wire.read()?;
        if packet[0] != PROTOCOL {
            return Err(Cause::NotMysql);
        }
        let greeting: HandshakePacket = parse(&packet)?;
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
            greeting.server_version_parsed().unwrap_or_default(),
            account.user.map(str::as_bytes),
            account.database.map(str::as_bytes),
            Some(AuthPlugin::from_bytes(plugin.name().as_bytes())),
            capabilities,
            None,
            MAX_PACKET,
        ))?;

        // A server asks each thing once at most.
        let (mut switched, mut proved) = (false, false);
        loop {
            let packet = wire.read()?;
            match packet.as_slice() {
                [0x00, ..] => {
                    return Ok(Self {
                        wire,
                        id: greeting.connection_id(),
                    });
                }
                [0xfe] => return Err(Cause::Plugin("mysql_old_password".into())),
                [0xfe, request @ ..] if !switched => {
                    switched = true;
                    let mut parts = request.splitn(2, |byte| *byte == 0);
                    plugin = Plugin::named(parts.next().unwrap_or_default())?;
                    nonce = parts.next().unwrap_or_default().to_vec();
                    wire.write(&plugin.answer(password, &nonce, wire.is_encrypted()))?;
                }
                // The first releases of parsec send its salt without the 1.
                [0x01, more @ ..] | more if !proved => {
                    proved = true;
                    plugin.go_on(&mut wire, more, password, &nonce)?;
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

    /// Takes leave and closes first.
    pub fn leave(self, close: Close) {
        self.wire.close(farewell(close), None);
    }

    /// The same, and waits a moment until the server has closed too.
    pub fn leave_for_good(self) {
        /// A busy server takes some milliseconds.
        const MOMENT: std::time::Duration = std::time::Duration::from_secs(1);
        self.wire.close(farewell(Close::Quit), Some(MOMENT));
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
