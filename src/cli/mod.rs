//! The command line: the arguments of each command, and the file that runs it.

#[macro_use]
mod output;

mod assembly;
mod call;
mod catalog;
mod check;
mod command;
mod completions;
mod configuration;
mod dead;
mod demo;
mod exit;
mod in_process;
mod mcp;
mod man;
mod reload;
mod run;
mod sandbox;
mod signals;
mod submit;

pub use command::{Cli, main};
