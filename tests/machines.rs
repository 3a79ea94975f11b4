//! Machines made at random: what `verdict` says is left against what the kernel then gives.
//!
//! `TWCHECK_SEED` repeats a run, `TWCHECK_MACHINES` makes it longer.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{env_number, grants_single_ports, in_namespace, json, own_port_range, sysctl};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// SplitMix64: a few lines suffice where a seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number from `low` to `high`.
    fn between(&mut self, low: u16, high: u16) -> u16 {
        low + u16::try_from(self.roll() % (u64::from(high - low) + 1)).unwrap()
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.roll().is_multiple_of(number)
    }
}

/// A socket that leaves nothing behind when it is dropped: not even TIME_WAIT.
fn socket(address: IpAddr) -> Socket {
    let socket = Socket::new(
        Domain::for_address((address, 0).into()),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket
}

/// A server that never accepts: its connections are open all the same.
fn server(address: SocketAddr) -> Socket {
    let server = socket(address.ip());
    server.set_reuse_address(true).unwrap();
    server.bind(&address.into()).unwrap();
    server.listen(4096).unwrap();
    server
}

fn connect(server: SocketAddr, on_lo: bool) -> std::io::Result<Socket> {
    let client = socket(server.ip());
    if on_lo {
        client.bind_device(Some(b"lo")).unwrap();
    }
    client.connect(&server.into())?;
    Ok(client)
}

/// A port that something holds, or nothing where the dice took one that is held already.
fn holder(dice: &mut Dice, low: u16, high: u16, other: SocketAddr) -> Option<(String, Socket)> {
    let port = dice.between(low, high);
    let address: IpAddr = match dice.between(0, 4) {
        0 => Ipv4Addr::UNSPECIFIED.into(),
        1 => Ipv4Addr::new(127, 0, 0, 9).into(),
        2 => Ipv6Addr::UNSPECIFIED.into(),
        3 => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let kind = dice.between(0, 2);
    let held = socket(if kind == 2 { other.ip() } else { address });
    let at: SocketAddr = match kind {
        2 => (other.ip(), port).into(),
        _ => (address, port).into(),
    };
    held.bind(&at.into()).ok()?;
    match kind {
        0 => held.listen(8).ok()?,
        1 => {}
        _ => held.connect(&other.into()).ok()?,
    }
    let kind = ["listens on", "is bound to", "connects from"][usize::from(kind)];
    Some((format!("{kind} {at}"), held))
}

/// Clients whose ports connect() passes over, though no row of theirs shows it: bind() has chosen
/// them; and clients that choose from a part of the range. Some have closed, and leave orphans.
fn neighbours(dice: &mut Dice, low: u16, high: u16, other: SocketAddr) -> (String, Vec<Socket>) {
    let address = Ipv4Addr::new(127, 0, 0, *[1, 8].get(usize::from(dice.one_in(2))).unwrap());
    let has_range = dice.one_in(3);
    let from = dice.between(low, high - 1);
    let to = dice.between(from + 1, high);
    let closes = dice.one_in(2);
    let asked = dice.between(1, (high - low) / 2 + 1);
    let made: Vec<_> = (0..asked)
        .map_while(|_| {
            let client = socket(other.ip());
            if has_range {
                setsockopt(&client, IpBindAddressNoPort, &true).unwrap();
                own_port_range(&client, from, to).ok()?;
            }
            client.bind(&SocketAddr::from((address, 0)).into()).ok()?;
            client.connect(&other.into()).ok()?;
            Some(client)
        })
        .collect();
    let about = format!(
        "{} connections from {address}, {}{}",
        made.len(),
        if has_range {
            format!("of {from}-{to}")
        } else {
            "bound".into()
        },
        if closes { ", closed" } else { "" }
    );
    if !closes {
        return (about, made);
    }
    for client in made {
        client.set_linger(None).unwrap();
    }
    (about, Vec::new())
}

fn flow(verdict: &Value, server: SocketAddr, on_lo: bool) -> &Value {
    let is_it = |flow: &&Value| {
        flow["destination"] == server.ip().to_string()
            && flow["destination_port"] == server.port()
            && flow["interface"]
                == if on_lo {
                    Value::from("lo")
                } else {
                    Value::Null
                }
    };
    let flows = verdict["flows"].as_array().unwrap();
    flows
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("{server}: {verdict}"))
}

/// Makes a machine, asks `verdict`, and takes ports until the kernel says no; what differs.
fn try_a_machine(dice: &mut Dice, number: u16) -> Result<(), String> {
    let low = dice.between(20_000, 50_000);
    let most = if dice.one_in(3) { 12 } else { 400 };
    let high = low + dice.between(2, most);
    sysctl("net.ipv4.ip_local_reserved_ports", "\n");
    sysctl("net.ipv4.ip_local_port_range", &format!("{low} {high}"));
    let reserved: Vec<_> = (0..dice.between(0, 200))
        .filter(|_| high - low > 20)
        .map(|_| dice.between(low - 5, high + 5).to_string())
        .collect();
    sysctl(
        "net.ipv4.ip_local_reserved_ports",
        &format!("{}\n", reserved.join(",")),
    );
    let [upper, lower] = number.to_be_bytes();
    let other: SocketAddr = (Ipv4Addr::LOCALHOST, 3399).into();
    let destination: SocketAddr = if dice.one_in(4) {
        (Ipv6Addr::LOCALHOST, 4000 + number).into()
    } else {
        (Ipv4Addr::new(127, 1, upper, lower), 3306).into()
    };
    // Their orphans are gone with their server, which is another one on each machine.
    let third: SocketAddr = (Ipv4Addr::new(127, 2, upper, lower), 3306).into();
    let _servers = [server(destination), server(other), server(third)];
    let holders: Vec<_> = (0..dice.between(0, 6))
        .filter_map(|_| holder(dice, low, high, other))
        .collect();
    let neighbours: Vec<_> = (0..dice.between(0, 2))
        .map(|_| neighbours(dice, low, high, third))
        .collect();
    // Flows that were there before: the one in question, and the one beside it.
    let on_lo = dice.one_in(3);
    let beside: Vec<_> = (0..dice.between(0, (high - low) / 3))
        .filter(|_| on_lo)
        .map_while(|_| connect(destination, false).ok())
        .collect();
    let mut held: Vec<_> = (0..=dice.between(0, (high - low) / 2))
        .map_while(|_| connect(destination, on_lo).ok())
        .collect();
    let about = || {
        format!(
            "{low}-{high}, reserved {}, {}toward {destination}, {} before and {} beside, {:?}, {:?}",
            reserved.join(","),
            if on_lo { "on lo " } else { "" },
            held.len(),
            beside.len(),
            holders.iter().map(|(what, _)| what).collect::<Vec<_>>(),
            neighbours.iter().map(|(what, _)| what).collect::<Vec<_>>()
        )
    };
    let about = about();
    let is_odd = (low ^ high) & 1 == 0;
    let before = json(&["verdict", "--json", "--top", "0"]);
    if held.is_empty() {
        let usable = &before["capacity"]["usable_ports"];
        let full = usable == 0 || on_lo || is_odd;
        return full
            .then_some(())
            .ok_or(format!("none of {usable} free: {about}"));
    }
    let said = flow(&before, destination, on_lo)["ports_free"]
        .as_u64()
        .unwrap();
    let mut made = 0;
    let errno = loop {
        match connect(destination, on_lo) {
            Ok(client) => held.push(client),
            Err(error) => break error.raw_os_error(),
        }
        made += 1;
    };
    // One end of a range of an odd number of ports is a matter of luck.
    let exact = made == said || (is_odd && made == said + 1);
    // A kernel that cannot be asked for single ports does not tell which are bound. Those that bind()
    // has handed out are estimated, the others taken for usable.
    let unseen = holders
        .iter()
        .filter(|(what, _)| !what.starts_with("listens"));
    let unseen = unseen.count() as u64;
    let estimated = neighbours.iter().any(|(what, _)| !what.starts_with("0 "));
    let near =
        estimated || (said.saturating_sub(unseen)..=said + u64::from(is_odd)).contains(&made);
    let exact = exact || (!grants_single_ports() && near);
    let after = json(&["verdict", "--json", "--top", "0"]);
    let level = match after["capacity"]["usable_ports"].as_u64() {
        Some(0) => &after["level"], // It is said of the machine.
        // So is a pool of bind() that is known by an estimate.
        _ if estimated && !grants_single_ports() => &after["level"],
        _ => &flow(&after, destination, on_lo)["level"],
    };
    if exact && errno == Some(99) && level == "critical" {
        return Ok(());
    }
    Err(format!(
        "{said} said, {made} made, errno {errno:?}, then {level}: {about}"
    ))
}

#[test]
fn what_verdict_says_is_left_is_what_the_kernel_gives() {
    in_namespace("what_verdict_says_is_left_is_what_the_kernel_gives", || {
        let machines = env_number("TWCHECK_MACHINES", 12);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = env_number("TWCHECK_SEED", now.as_secs());
        println!("MEASURED seed {seed}");
        sysctl("net.ipv4.tcp_tw_reuse", "0");
        let mut dice = Dice(seed);
        let machines = u16::try_from(machines).unwrap();
        let wrong: Vec<_> = (0..machines)
            .filter_map(|number| try_a_machine(&mut dice, number).err())
            .collect();
        println!(
            "MEASURED {} of {machines} machines came out exact",
            usize::from(machines) - wrong.len()
        );
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    });
}
