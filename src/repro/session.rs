//! One MySQL connection of the loop: greeting, login, leave. The mysql crate hands out no socket
//! before the login and takes none, so that neither connect() could be timed by itself, nor a
//! source address be bound without a port, nor the FIN be sent first.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql::consts::CapabilityFlags as Can;
use mysql::{DriverError, Opts};
use mysql_common::crypto;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    AuthPlugin, AuthSwitchRequest, ErrPacket, HandshakePacket, HandshakeResponse, SslRequest,
};
use mysql_common::proto::{MyDeserialize, MySerialize};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConnection, StreamOwned};
use socket2::SockRef;

use super::tls::Tls;

/// Whether a server that begins with these bytes speaks MySQL: a greeting of protocol 10, or an
/// error in its place.
#[must_use]
pub fn greets_like_mysql(first: &[u8]) -> bool {
    const PROTOCOL_10: u8 = 10;
    const ERROR: u8 = 0xff;
    matches!(first, [_, _, 0, 0, PROTOCOL_10 | ERROR, ..])
}

/// How a connection ends. Either way the client sends the first FIN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// Say COM_QUIT first, as client libraries do
    #[default]
    Quit,
    /// Close without a word, as an application that is killed; MySQL counts an aborted client
    Abrupt,
}

/// A connection that is logged in.
pub(super) struct Session(BufReader<Stream>);

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// What a client may send at once; any value does for a login.
const MAX_PACKET: u32 = 16 * 1024 * 1024;
const UTF8MB4: u8 = 45;

impl Session {
    /// Logs in over `tcp` as `options` say, by TLS where there is any.
    ///
    /// # Errors
    /// The server's, the driver's and the system's, told apart as the mysql crate does.
    pub fn login(tcp: TcpStream, options: &Opts, tls: Option<&Tls>) -> Result<Self, mysql::Error> {
        let mut wire = Wire {
            stream: BufReader::with_capacity(BUFFER, Stream::Plain(tcp)),
            sequence: 0,
        };
        let packet = wire.read()?;
        let greeting: HandshakePacket = parse(&packet)?;
        if greeting.protocol_version() != 10 {
            let version = greeting.protocol_version();
            return Err(DriverError::UnsupportedProtocol(version).into());
        }
        let mut capabilities = Can::CLIENT_PROTOCOL_41
            | Can::CLIENT_SECURE_CONNECTION
            | Can::CLIENT_LONG_PASSWORD
            | Can::CLIENT_TRANSACTIONS
            | Can::CLIENT_PLUGIN_AUTH;
        if let Some(tls) = tls {
            if !greeting.capabilities().contains(Can::CLIENT_SSL) {
                return Err(DriverError::TlsNotSupported.into());
            }
            capabilities |= Can::CLIENT_SSL;
            wire.write_struct(&SslRequest::new(capabilities, MAX_PACKET, UTF8MB4))?;
            wire = wire.encrypt(tls)?;
        }

        let mut nonce = greeting.scramble_1_ref().to_vec();
        nonce.extend(greeting.scramble_2_ref().unwrap_or_default());
        nonce.resize(NONCE, 0);
        // Others are never the default: the server asks to switch to them.
        let mut plugin = match greeting.auth_plugin() {
            Some(plugin @ AuthPlugin::CachingSha2Password) => plugin.into_owned(),
            _ => AuthPlugin::MysqlNativePassword,
        };
        let password = options.get_pass();
        let proof = plugin.gen_data(password, &nonce);
        wire.write_struct(&HandshakeResponse::new(
            proof.as_deref(),
            greeting.server_version_parsed().unwrap_or_default(),
            options.get_user().map(str::as_bytes),
            options.get_db_name().map(str::as_bytes),
            Some(plugin.clone()),
            capabilities,
            None,
            MAX_PACKET,
        ))?;

        // A server asks each thing once at most.
        let (mut switched, mut proved) = (false, false);
        loop {
            let packet = wire.read()?;
            match packet.as_slice() {
                [0x00, ..] => return Ok(Self(wire.stream)),
                [0xfe] => return Err(DriverError::OldMysqlPasswordDisabled.into()),
                [0xfe, ..] if !switched => {
                    switched = true;
                    let request: AuthSwitchRequest = parse(&packet)?;
                    plugin = request.auth_plugin().into_owned();
                    nonce = request.plugin_data().to_vec();
                    if plugin == AuthPlugin::Ed25519 {
                        // It ends without the zero that is cut off here where it is the last byte.
                        nonce.resize(ED25519_NONCE, 0);
                    }
                    let proof = match &plugin {
                        AuthPlugin::MysqlNativePassword
                        | AuthPlugin::CachingSha2Password
                        | AuthPlugin::Ed25519 => plugin.gen_data(password, &nonce),
                        other => {
                            let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                            return Err(DriverError::UnknownAuthPlugin(name).into());
                        }
                    };
                    wire.write(proof.as_deref().unwrap_or_default())?;
                }
                [0x01, FAST_AUTH_OK] if !proved => proved = true,
                [0x01, FULL_AUTH] if !proved && plugin == AuthPlugin::CachingSha2Password => {
                    proved = true;
                    wire.prove_in_full(password.unwrap_or_default(), &nonce)?;
                }
                _ => return Err(DriverError::UnexpectedPacket.into()),
            }
        }
    }

    /// Takes leave and closes first, every time: the farewell and the FIN leave in one packet, as
    /// over a network, where the client's FIN is on its way long before the server could answer.
    pub fn leave(self, close: Close) {
        let mut stream = self.0.into_inner();
        // Where the server is gone there is nobody to take leave of.
        let _ = SockRef::from(stream.tcp()).set_tcp_cork(true);
        if close == Close::Quit {
            const COM_QUIT: [u8; 5] = [1, 0, 0, 0, 1];
            let _ = stream.write_all(&COM_QUIT);
        }
        // No close_notify of TLS: the server would close without reading it, and the kernel would
        // send a reset for that, which ends TIME_WAIT.
        let _ = stream.flush();
        let _ = stream.tcp().shutdown(Shutdown::Write);
        if let Stream::Tls(tls) = &mut stream {
            drain(&mut tls.sock, LINGER);
        }
    }
}

/// How long a server may take to close its end under TLS.
const LINGER: Duration = Duration::from_secs(2);

/// Reads what the server still has to say, for this `time`: closed with unread data, the kernel
/// would send a reset and keep no TIME_WAIT (RFC 2525, 2.17).
pub(super) fn drain(tcp: &mut TcpStream, time: Duration) {
    let start = Instant::now();
    let mut rest = [0; 4096];
    loop {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() || tcp.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if !matches!(tcp.read(&mut rest), Ok(length) if length > 0) {
            return;
        }
    }
}

const NONCE: usize = 20;
const ED25519_NONCE: usize = 32;
/// `fast_auth_success`, `perform_full_authentication` and `request_public_key` of
/// `caching_sha2_password`.
const FAST_AUTH_OK: u8 = 3;
const FULL_AUTH: u8 = 4;
const REQUEST_PUBLIC_KEY: u8 = 2;

/// Bytes of an RSA key in DER beside its modulus, at most, and of the padding under it.
const AROUND_THE_MODULUS: usize = 40;
const PADDING: usize = 42;

/// MySQL's packets: three bytes of length, one of sequence.
struct Wire {
    stream: BufReader<Stream>,
    sequence: u8,
}

impl Wire {
    fn read(&mut self) -> Result<Vec<u8>, mysql::Error> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, sequence] = header;
        let length = u32::from_le_bytes([a, b, c, 0]);
        if length == 0 || length > LONGEST {
            return Err(DriverError::UnexpectedPacket.into());
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0; length as usize];
        self.stream.read_exact(&mut packet)?;
        if packet[0] == 0xff {
            // Before the greeting the server cannot know that the client understands a state.
            let with_state = packet.get(3) == Some(&b'#');
            let capabilities = if with_state {
                Can::CLIENT_PROTOCOL_41
            } else {
                Can::empty()
            };
            return Err(match ParseBuf(&packet).parse(capabilities)? {
                ErrPacket::Error(error) => mysql::Error::MySqlError(error.into()),
                ErrPacket::Progress(_) => DriverError::UnexpectedPacket.into(),
            });
        }
        Ok(packet)
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let [a, b, c, _] = length.to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload].concat();
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.get_mut().write_all(&packet)?;
        self.stream.get_mut().flush()
    }

    fn write_struct(&mut self, packet: &impl MySerialize) -> io::Result<()> {
        let mut payload = Vec::new();
        packet.serialize(&mut payload);
        self.write(&payload)
    }

    fn encrypt(self, tls: &Tls) -> Result<Self, mysql::Error> {
        let mut client = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())?;
        // The server says nothing more until it is asked, so nothing is left in the buffer.
        let stream = match self.stream.into_inner() {
            Stream::Plain(mut tcp) => {
                while client.is_handshaking() {
                    client.complete_io(&mut tcp).map_err(tls_error)?;
                }
                Stream::Tls(Box::new(StreamOwned::new(client, tcp)))
            }
            encrypted @ Stream::Tls(_) => encrypted,
        };
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            ..self
        })
    }

    /// `caching_sha2_password` where the server has not seen this user yet: the password itself,
    /// under TLS or the server's RSA key.
    fn prove_in_full(&mut self, password: &str, nonce: &[u8]) -> Result<(), mysql::Error> {
        let mut clear = [password.as_bytes(), &[0]].concat();
        if let Stream::Tls(_) = self.stream.get_ref() {
            self.write(&clear)?;
            return Ok(());
        }
        self.write(&[REQUEST_PUBLIC_KEY])?;
        let answer = self.read()?;
        let [0x01, key @ ..] = answer.as_slice() else {
            return Err(DriverError::UnexpectedPacket.into());
        };
        // The crate panics where the password does not fit under the key.
        let modulus = SubjectPublicKeyInfoDer::from_pem_slice(key)
            .map_or(0, |der| der.len().saturating_sub(AROUND_THE_MODULUS));
        if modulus < clear.len() + PADDING {
            return Err(DriverError::UnexpectedPacket.into());
        }
        for (byte, salt) in clear.iter_mut().zip(nonce.iter().cycle()) {
            *byte ^= salt;
        }
        self.write(&crypto::encrypt(&clear, key))?;
        Ok(())
    }
}

/// More than any packet of a usual login.
const BUFFER: usize = 2048;

/// A packet that cannot be parsed is not MySQL's.
fn parse<'a, T: MyDeserialize<'a, Ctx = ()>>(packet: &'a [u8]) -> Result<T, mysql::Error> {
    ParseBuf(packet)
        .parse(())
        .map_err(|_| DriverError::UnexpectedPacket.into())
}

/// The longest packet of a login; a longer one is no MySQL.
const LONGEST: u32 = 1024 * 1024;

/// What rustls wraps into an I/O error.
fn tls_error(error: io::Error) -> mysql::Error {
    match error.downcast::<rustls::Error>() {
        Ok(tls) => tls.into(),
        Err(other) => other.into(),
    }
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(buffer),
            Self::Tls(tls) => tls.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread::{self, JoinHandle};

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

    /// A server of MySQL 8 in so far as it asks for caching_sha2_password, packet by packet: it says
    /// each of `answers` after one packet of the client, and returns what it heard.
    fn mysql_8(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let mut wire = Wire {
                stream: BufReader::new(Stream::Plain(tcp)),
                sequence: 0,
            };
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
            wire.write(&greeting).unwrap();
            let mut heard = Vec::new();
            for answer in answers {
                heard.push(wire.read().unwrap());
                wire.write(&answer).unwrap();
                if answer == [1, FAST_AUTH_OK] {
                    wire.write(&OK).unwrap();
                }
            }
            heard
        });
        (address, server)
    }

    const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
    /// SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce), by Python's hashlib.
    const PROOF: [u8; 32] = [
        0x9e, 0xab, 0xc4, 0x26, 0xd7, 0xdd, 0x6e, 0xcb, 0x62, 0x09, 0xbc, 0x00, 0x3c, 0xb1, 0x4a,
        0xcd, 0x5e, 0xf6, 0x53, 0x8f, 0x68, 0xad, 0x98, 0x68, 0x13, 0x7d, 0xa9, 0x32, 0x5a, 0x5e,
        0x69, 0x28,
    ];

    fn login(server: SocketAddr) -> Result<(), mysql::Error> {
        let options = mysql::OptsBuilder::new()
            .user(Some("app"))
            .pass(Some("correct horse"))
            .into();
        let tcp = TcpStream::connect(server).unwrap();
        Session::login(tcp, &options, None).map(|session| session.leave(Close::Quit))
    }

    #[test]
    fn a_password_that_mysql_8_has_cached_is_proved_by_its_hash() {
        let (server, heard) = mysql_8(vec![vec![1, FAST_AUTH_OK]]);
        login(server).unwrap();
        let heard = heard.join().unwrap();
        let proved = heard[0].windows(PROOF.len()).any(|part| part == PROOF);
        assert!(proved, "{:x?}", heard[0]);
    }

    #[test]
    fn a_password_that_mysql_8_has_not_cached_is_sent_under_its_key() {
        let key = [&[1], KEY].concat();
        let (server, heard) = mysql_8(vec![vec![1, FULL_AUTH], key, OK.to_vec()]);
        login(server).unwrap();
        let heard = heard.join().unwrap();
        assert_eq!(heard[1], [REQUEST_PUBLIC_KEY]);
        assert_eq!(heard[2].len(), 256, "RSA of 2,048 bits");
    }

    #[test]
    fn a_plugin_that_is_not_spoken_is_named() {
        let switch = [&[0xfe], &b"auth_gssapi_client\0x"[..]].concat();
        let (server, _) = mysql_8(vec![switch]);
        assert!(matches!(
            login(server),
            Err(mysql::Error::DriverError(DriverError::UnknownAuthPlugin(name)))
                if name == "auth_gssapi_client"
        ));
    }

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
