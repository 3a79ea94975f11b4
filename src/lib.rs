//! Can this machine still open connections to that server, and if not, why, and what fixes it?
//!
//! Data flows left to right, once:
//!
//! ```text
//! kernel → system (reads) → model (facts) → judge (pure) → render → stdout
//! MySQL ←→ repro (connect/close loop) ──────↗
//! ```
//!
//! Only [`system`] and [`repro`] touch the machine; [`judge`] has no clock and no files;
//! [`render`] decides nothing. Imports follow the arrows.

pub mod cli;
pub mod commands;
pub mod exit;
pub mod judge;
pub mod model;
pub mod refusal;
pub mod render;
pub mod repro;
pub mod secret;
pub mod system;
pub mod words;
