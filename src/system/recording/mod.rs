//! Recorded machines: a folder, an archive, or what ss and netstat printed.

pub mod answers;
mod archive;
mod listing;
mod open;
mod scrub;
mod take;

pub use answers::Taken;
pub use archive::Archive;
pub use open::{Recorded, open};
pub use scrub::is_made_up;
pub use take::{Recording, Subject, check, take};

/// What is read of /proc, below it.
pub const FILES: [&str; 32] = [
    "net/tcp",
    "net/tcp6",
    "net/udp",
    "net/udp6",
    "net/udplite",
    "net/udplite6",
    "net/sockstat",
    "net/sockstat6",
    "net/netstat",
    "net/snmp",
    "net/stat/nf_conntrack",
    "net/stat/ip_conntrack",
    "sys/kernel/arch",
    "sys/kernel/hostname",
    "sys/kernel/osrelease",
    "sys/net/ipv4/ip_local_port_range",
    "sys/net/ipv4/ip_local_reserved_ports",
    "sys/net/ipv4/ip_unprivileged_port_start",
    "sys/net/ipv4/tcp_tw_reuse",
    "sys/net/ipv4/tcp_tw_reuse_delay",
    "sys/net/ipv4/tcp_tw_recycle",
    "sys/net/ipv4/tcp_tw_timeout",
    "sys/net/ipv4/tcp_timestamps",
    "sys/net/ipv4/tcp_max_tw_buckets",
    "sys/net/ipv4/tcp_fin_timeout",
    "sys/net/netfilter/nf_conntrack_count",
    "sys/net/netfilter/nf_conntrack_max",
    "sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait",
    "sys/net/ipv4/netfilter/ip_conntrack_count",
    "sys/net/ipv4/netfilter/ip_conntrack_max",
    "sys/net/ipv4/netfilter/ip_conntrack_tcp_timeout_time_wait",
    "sys/net/ipv4/ip_conntrack_max",
];

/// What is read too, where somebody has put it there.
const TRACKED: [&str; 2] = ["net/nf_conntrack", "net/ip_conntrack"];

/// The list of sockets beside `proc`.
const SOCKETS: &str = "twcheck/sockets";

/// The answers beside it.
const ANSWERS: &str = "twcheck/answers.json";

/// It is there where addresses and names are not the real ones.
const SCRUBBED: &str = "twcheck/scrubbed";
