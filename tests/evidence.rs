//! What `repro` says rests on what was seen: scripted servers and real kernels on which a look-alike
//! would be told.

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{exit, in_namespace, port_range, stderr, text, twcheck};

/// `Protocol::HandshakeV10` of a server of this version and plugin, with these capabilities besides.
fn greeting(version: &str, plugin: &str, more: u32) -> Vec<u8> {
    const CAPABILITIES: u32 = 0x0001 | 0x0008 | 0x0200 | 0x2000 | 0x8000 | 0x0008_0000;
    let [a, b, c, d] = (CAPABILITIES | more).to_le_bytes();
    let mut packet = vec![10];
    packet.extend(version.as_bytes());
    packet.extend(b"\0\x01\0\0\0abcdefgh\0");
    packet.extend([a, b, 45, 2, 0, c, d, 21]);
    packet.extend([0; 10]);
    packet.extend(b"ijklmnopqrst\0");
    packet.extend(plugin.as_bytes());
    packet.push(0);
    packet
}

fn say(tcp: &mut TcpStream, sequence: u8, payload: &[u8]) -> io::Result<()> {
    let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    tcp.write_all(&[&[a, b, c, sequence], payload].concat())
}

fn hear(tcp: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    tcp.read_exact(&mut header)?;
    let [a, b, c, sequence] = header;
    let mut payload = vec![0; usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16];
    tcp.read_exact(&mut payload)?;
    Ok((sequence, payload))
}

/// Listens on `address`, and lets `talk` have each connection and its number, on a thread of its own.
fn listen<T>(address: &str, talk: T)
where
    T: Fn(&mut TcpStream, usize) -> io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for (number, client) in listener.incoming().filter_map(Result::ok).enumerate() {
            let talk = Arc::clone(&talk);
            thread::spawn(move || {
                let mut client = client;
                client.set_nodelay(true).unwrap();
                let _ = talk(&mut client, number);
            });
        }
    });
}

/// MySQL counts a connection that breaks off before the login, and blocks the host after some.
#[test]
fn a_server_that_is_slow_to_greet_is_not_taken_for_another() {
    in_namespace(
        "a_server_that_is_slow_to_greet_is_not_taken_for_another",
        || {
            port_range(40000, 40999);
            let broken = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&broken);
            listen("127.0.0.1:3307", move |tcp, _| {
                thread::sleep(Duration::from_millis(1500));
                let login = say(tcp, 0, &greeting("8.0.36", "caching_sha2_password", 0))
                    .and_then(|()| hear(tcp));
                if login.is_err() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                say(tcp, 2, b"\xff\x15\x04#28000denied")
            });
            let plain = ["repro", "--protocol", "tcp", "--host", "127.0.0.1"];
            let output = twcheck(&[&plain[..], &["--port", "3307", "--duration", "1s"]].concat());
            assert_eq!(exit(&output), 3, "{}", text(&output));
            assert!(
                stderr(&output).contains("greets like MySQL"),
                "{}",
                text(&output)
            );
            // One that never says a word may be MySQL, too.
            common::serve("127.0.0.1:6379");
            let output = twcheck(&[&plain[..], &["--port", "6379"]].concat());
            assert_eq!(exit(&output), 3, "{}", text(&output));
            let said = stderr(&output).replace('\n', " ");
            assert!(
                said.contains("has said nothing for 11 s") && said.contains("hint: add --force"),
                "{said}"
            );
            thread::sleep(Duration::from_secs(2));
            assert_eq!(broken.load(Ordering::Relaxed), 0);
        },
    );
}
