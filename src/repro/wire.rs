//! MySQL's packets on a socket: three bytes of length, one of sequence. Every exchange of them has
//! an end in time and a bound on what is read, whatever the server does.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql::consts::CapabilityFlags as Can;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{ErrPacket, HandshakePacket};
use mysql_common::proto::MySerialize;
use nix::sys::socket::getsockopt;
use rustls::{ClientConnection, StreamOwned};
use socket2::SockRef;

use super::cause::{Cause, Stage};
use super::tls::{Tls, trouble};

/// How long a login or an answer may take, where the run itself is not shorter.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// When an exchange of packets began, and when it has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    begun: Instant,
    end: Instant,
}

impl Exchange {
    /// One that may take so long from now on.
    pub fn within(patience: Duration) -> Self {
        let begun = Instant::now();
        Self {
            begun,
            end: begun + patience,
        }
    }

    /// The same, over by `end` at the latest.
    pub fn until(self, end: Instant) -> Self {
        Self {
            end: self.end.min(end),
            ..self
        }
    }
}

/// Packets to and from one server.
pub(super) struct Wire {
    stream: BufReader<Stream>,
    sequence: u8,
    /// What the present exchange is about.
    pub stage: Stage,
}

enum Stream {
    Plain(Bounded),
    Tls(Box<StreamOwned<ClientConnection, Bounded>>),
}

/// A socket within the bounds of the present exchange.
struct Bounded {
    tcp: TcpStream,
    exchange: Exchange,
    /// Bytes that may still be read.
    left: usize,
}

/// Bytes before the payload of a packet.
pub(super) const HEADER: usize = 4;

/// More than any packet of a usual login.
const BUFFER: usize = 2048;

/// What a server may send in one exchange. A login takes some 200 bytes, with a chain of
/// certificates 10 KB, the answer to a question of the watch 300.
const MOST: usize = 256 * 1024;

impl Wire {
    /// Begins with a greeting, which the server sends by itself.
    pub fn new(tcp: TcpStream, exchange: Exchange) -> Self {
        let bounded = Bounded {
            tcp,
            exchange,
            left: MOST,
        };
        Self {
            stream: BufReader::with_capacity(BUFFER, Stream::Plain(bounded)),
            sequence: 0,
            stage: Stage::Greeting,
        }
    }

    /// Begins another exchange.
    pub fn begin(&mut self, exchange: Exchange, stage: Stage) {
        let bounded = self.stream.get_mut().bounded();
        bounded.exchange = exchange;
        bounded.left = MOST;
        self.stage = stage;
        self.sequence = 0;
    }

    /// Whether nobody else can read along.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream.get_ref(), Stream::Tls(_))
    }

    /// The payload of the next packet, which is not empty.
    ///
    /// # Errors
    /// The server's, where the packet is one; else what became of the connection.
    pub fn read(&mut self) -> Result<Vec<u8>, Cause> {
        let mut header = [0; HEADER];
        self.fill(&mut header)?;
        let [a, b, c, sequence] = header;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if length == 0 || length > MOST {
            return Err(Cause::NotMysql);
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0; length];
        self.fill(&mut packet)?;
        if packet[0] == 0xff {
            // Before the greeting the server cannot know that the client understands a state.
            let with_state = packet.get(3..9).is_some_and(is_state);
            let capabilities = if with_state {
                Can::CLIENT_PROTOCOL_41
            } else {
                Can::empty()
            };
            return Err(match ParseBuf(&packet).parse(capabilities) {
                Ok(ErrPacket::Error(error)) => Cause::Server(error.into()),
                Ok(ErrPacket::Progress(_)) | Err(_) => Cause::NotMysql,
            });
        }
        Ok(packet)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Cause> {
        let read = self.stream.read_exact(bytes);
        read.map_err(|error| self.cause(&error))
    }

    /// # Errors
    /// What became of the connection.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), Cause> {
        let Ok(length) = u32::try_from(payload.len()) else {
            return Err(Cause::Other("a packet of 4 GB cannot be sent".into()));
        };
        let [a, b, c, _] = length.to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload].concat();
        self.sequence = self.sequence.wrapping_add(1);
        let stream = self.stream.get_mut();
        let written = stream.write_all(&packet).and_then(|()| stream.flush());
        written.map_err(|error| self.cause(&error))
    }

    /// # Errors
    /// Likewise.
    pub fn write_struct(&mut self, packet: &impl MySerialize) -> Result<(), Cause> {
        let mut payload = Vec::new();
        packet.serialize(&mut payload);
        self.write(&payload)
    }

    /// The same connection under TLS.
    ///
    /// # Errors
    /// Where it does not come about.
    pub fn encrypt(mut self, tls: &Tls) -> Result<Self, Cause> {
        let before = std::mem::replace(&mut self.stage, Stage::Tls);
        let mut client = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|error| Cause::Tls(trouble(&error)))?;
        if let Stream::Plain(socket) = self.stream.get_mut() {
            let mut shaken = Ok((0, 0));
            while shaken.is_ok() && client.is_handshaking() {
                shaken = client.complete_io(socket);
            }
            shaken.map_err(|error| self.cause(&error))?;
        }
        // The server says nothing more until it is asked, so nothing is left in the buffer.
        let stream = match self.stream.into_inner() {
            Stream::Plain(socket) => Stream::Tls(Box::new(StreamOwned::new(client, socket))),
            encrypted @ Stream::Tls(_) => encrypted,
        };
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            sequence: self.sequence,
            stage: before,
        })
    }

    /// What an error on the open connection means.
    fn cause(&mut self, error: &io::Error) -> Cause {
        let stage = self.stage;
        if let Some(tls) = rustls_error(error) {
            // Garbage in place of an alert is no certificate's fault.
            return Cause::Tls(trouble(tls));
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Cause::Slow {
                stage,
                after: self.stream.get_mut().bounded().exchange.begun.elapsed(),
            },
            io::ErrorKind::InvalidData | io::ErrorKind::QuotaExceeded => Cause::NotMysql,
            _ => Cause::Lost {
                stage,
                errno: error.raw_os_error(),
            },
        }
    }

    /// Closes first, every time: `farewell` and the FIN leave in one packet, as over a network,
    /// where the client's FIN is on its way long before the server could answer.
    pub fn part(self, farewell: &[u8]) -> Parting {
        /// How long the words may take to leave.
        const LEAVING: Duration = Duration::from_secs(1);
        let mut stream = self.stream.into_inner();
        let is_encrypted = matches!(stream, Stream::Tls(_));
        let bounded = stream.bounded();
        let was_closed = is_closed_by_peer(&bounded.tcp);
        bounded.exchange = Exchange::within(LEAVING);
        // Where the server is gone there is nobody to take leave of.
        let _ = SockRef::from(&bounded.tcp).set_tcp_cork(true);
        if !farewell.is_empty() {
            let _ = stream.write_all(farewell);
        }
        // No close_notify of TLS: the server would close without reading it, and the kernel would
        // send a reset for that, which ends TIME_WAIT.
        let _ = stream.flush();
        let tcp = match stream {
            Stream::Plain(bounded) => bounded.tcp,
            Stream::Tls(tls) => tls.sock.tcp,
        };
        let _ = tcp.shutdown(Shutdown::Write);
        Parting {
            tcp,
            is_encrypted,
            was_closed,
        }
    }
}

/// A connection whose client has taken leave.
pub(super) struct Parting {
    tcp: TcpStream,
    is_encrypted: bool,
    /// Whether the server had closed before.
    pub was_closed: bool,
}

impl Parting {
    /// Waits for the server's FIN: under TLS, and where `patience` is given, for so long. Whether a
    /// reset came instead.
    pub fn linger(&self, patience: Option<Duration>) -> bool {
        /// How long a server may take to close its end under TLS.
        const LINGER: Duration = Duration::from_secs(2);
        let patience = patience.or(self.is_encrypted.then_some(LINGER));
        patience.is_some_and(|patience| drain(&self.tcp, patience))
    }
}

/// Whether the other end has closed the connection, or reset it: CLOSE_WAIT or CLOSE, the first
/// octet of `struct tcp_info` (include/uapi/linux/tcp.h).
pub(super) fn is_closed_by_peer(tcp: &TcpStream) -> bool {
    const CLOSE: u8 = 7;
    const CLOSE_WAIT: u8 = 8;
    let state = getsockopt(tcp, option::State);
    state.is_ok_and(|state| matches!(state, CLOSE | CLOSE_WAIT))
}

mod option {
    //! Of `TCP_INFO` the state alone: nix reads as many octets as there are in what it returns.

    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        /// The state of a TCP socket.
        State,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        u8
    );
}

/// Reads what the server still has to say, for this `time`: closed with unread data, the kernel
/// would send a reset and keep no TIME_WAIT (RFC 2525, 2.17). Whether the server reset it meanwhile.
pub(super) fn drain(mut tcp: &TcpStream, time: Duration) -> bool {
    let start = Instant::now();
    let mut rest = [0; 4096];
    loop {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() || tcp.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match uninterrupted(|| tcp.read(&mut rest)) {
            Ok(1..) => {}
            Ok(0) => return false,
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Calls again where a process that was stopped goes on: with a timeout of the socket in force the
/// kernel does not do that by itself (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether it is an SQL state with its mark, and no text that begins like one.
fn is_state(bytes: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    matches!(bytes, [b'#', state @ ..] if state.iter().all(is_letter))
}

/// The greeting that a connection begins with.
///
/// # Errors
/// Where it is none of protocol 10.
pub(super) fn greeting(packet: &[u8]) -> Result<HandshakePacket<'_>, Cause> {
    const PROTOCOL: u8 = 10;
    /// Bytes from the end of the version to the length of the challenge.
    const FIXED: usize = 21;
    /// In MySQL it is 21. From 128 on mysql_common counts below zero and over.
    const LONGEST_CHALLENGE: u8 = 127;
    let version = packet.iter().position(|byte| *byte == 0);
    let challenge = version.and_then(|end| packet.get(end + FIXED));
    let is_usual = challenge.is_some_and(|length| *length <= LONGEST_CHALLENGE);
    if packet.first() != Some(&PROTOCOL) || !is_usual {
        return Err(Cause::NotMysql);
    }
    ParseBuf(packet).parse(()).map_err(|_| Cause::NotMysql)
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Bounded {
    /// What is left of the exchange's time.
    fn time(&self) -> io::Result<Duration> {
        /// The kernel takes a timeout of 0 for none.
        const SHORTEST: Duration = Duration::from_millis(1);
        let left = self.exchange.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left.max(SHORTEST))
    }
}

/// The kernel's word for a timeout of a socket is EAGAIN.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.tcp.set_read_timeout(Some(self.time()?))?;
        let most = buffer.len().min(self.left);
        let tcp = &mut self.tcp;
        let read = uninterrupted(|| tcp.read(&mut buffer[..most])).map_err(timed_out)?;
        self.left -= read;
        Ok(read)
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.time()?))?;
        let tcp = &mut self.tcp;
        uninterrupted(|| tcp.write(buffer)).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Stream {
    fn bounded(&mut self) -> &mut Bounded {
        match self {
            Self::Plain(bounded) => bounded,
            Self::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(bounded) => bounded.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(bounded) => bounded.write(buffer),
            Self::Tls(tls) => tls.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(bounded) => bounded.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The parsers are the crate's.
        #[test]
        fn no_packet_makes_a_parser_panic(
            begins in prop::sample::select(vec![&b"\x0a8.0.36\0"[..], b"\xff\x15\x04#28000", b""]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let packet = [begins, &rest].concat();
            if let Ok(greeting) = greeting(&packet) {
                let _ = (greeting.scramble_1_ref().len(), greeting.scramble_2_ref());
                let _ = greeting.auth_plugin_name_ref();
                let _ = greeting.capabilities();
            }
            for capabilities in [Can::empty(), Can::CLIENT_PROTOCOL_41] {
                let _ = ParseBuf(&packet).parse::<ErrPacket>(capabilities);
            }
            let mut row = ParseBuf(&packet);
            let _ = (row.checked_eat_lenenc_int(), row.checked_eat_lenenc_str());
        }
    }
}
