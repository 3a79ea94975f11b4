//! An embedded server that speaks enough of the MySQL protocol to be connected to and left: every
//! login is welcome, every command is answered OK, and the client closes first.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// What it calls itself: clients parse the number.
pub const VERSION: &str = "8.0.0-twcheck";

/// A server on a thread of its own, until the process ends.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    threads: Arc<Threads>,
}

/// Connections being served: what MySQL calls `Threads_connected`.
#[derive(Debug, Default)]
struct Threads {
    now: AtomicU32,
    most: AtomicU32,
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Whatever bind() or the start of the thread say.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let threads = Arc::new(Threads::default());
        let counters = Arc::clone(&threads);
        thread::Builder::new()
            .name("mysql-server".into())
            .spawn(move || accept(&listener, &counters))?;
        Ok(Self { address, threads })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most connections it ever served at the same time.
    #[must_use]
    pub fn most_threads_connected(&self) -> u32 {
        self.threads.most.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, threads: &Arc<Threads>) {
    // A failed accept() (the client is gone, no descriptor is left) concerns that client alone.
    for (number, client) in (1_u32..).zip(listener.incoming().filter_map(Result::ok)) {
        let served = Arc::clone(threads);
        let now = served.now.fetch_add(1, Ordering::Relaxed) + 1;
        served.most.fetch_max(now, Ordering::Relaxed);
        let started = thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let _ = serve(client, number); // A client that breaks off ends its own session only.
            served.now.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            threads.now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// `OK_Packet` of a command that changed no row, autocommit on.
const OK: [u8; 7] = [0x00, 0, 0, 2, 0, 0, 0];
const COM_QUIT: u8 = 0x01;

fn serve(mut client: TcpStream, number: u32) -> io::Result<()> {
    client.set_nodelay(true)?;
    write_packet(&mut client, 0, &greeting(number))?;
    let (sequence, _login) = read_packet(&mut client)?;
    write_packet(&mut client, sequence.wrapping_add(1), &OK)?;
    loop {
        let (sequence, command) = read_packet(&mut client)?;
        if command.first() == Some(&COM_QUIT) {
            // Wait for the client's FIN, so that TIME_WAIT stays on its side as over a network.
            io::copy(&mut client, &mut io::sink())?;
            return Ok(());
        }
        write_packet(&mut client, sequence.wrapping_add(1), &OK)?;
    }
}

/// `Protocol::HandshakeV10`.
fn greeting(number: u32) -> Vec<u8> {
    /// `CLIENT_LONG_PASSWORD | CONNECT_WITH_DB | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION |
    /// PLUGIN_AUTH`
    const CAPABILITIES: u32 = 0x0001 | 0x0008 | 0x0200 | 0x2000 | 0x8000 | 0x0008_0000;
    /// Any password is welcome, so the challenge need not be random.
    const CHALLENGE: [u8; 20] = *b"twcheck-takes-anyone";
    const UTF8MB4: u8 = 45;
    const AUTOCOMMIT: u16 = 2;
    let [low_0, low_1, high_0, high_1] = CAPABILITIES.to_le_bytes();
    let mut packet = vec![10];
    packet.extend(VERSION.as_bytes());
    packet.push(0);
    packet.extend(number.to_le_bytes());
    packet.extend(&CHALLENGE[..8]);
    packet.push(0);
    packet.extend([low_0, low_1, UTF8MB4]);
    packet.extend(AUTOCOMMIT.to_le_bytes());
    packet.extend([high_0, high_1, 21]);
    packet.extend([0; 10]);
    packet.extend(&CHALLENGE[8..]);
    packet.push(0);
    packet.extend(b"mysql_native_password\0");
    packet
}

fn write_packet(client: &mut TcpStream, sequence: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let [a, b, c, _] = length.to_le_bytes();
    client.write_all(&[&[a, b, c, sequence], payload].concat())
}

/// The largest packet worth reading: no login is longer. A client that announces more is cut off.
const LONGEST_PACKET: usize = 1024 * 1024;

fn read_packet(client: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    client.read_exact(&mut header)?;
    let [a, b, c, sequence] = header;
    let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    if length > LONGEST_PACKET {
        return Err(io::Error::other("packet too long"));
    }
    let mut payload = vec![0; length];
    client.read_exact(&mut payload)?;
    Ok((sequence, payload))
}
