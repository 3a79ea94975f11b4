use serde::Serialize;

/// What the loop speaks with the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Log in to MySQL
    #[default]
    Mysql,
    /// Connect only: for any TCP server
    Tcp,
}
