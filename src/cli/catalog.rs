//! `okta-worker catalog`: the definitions of the 28 as documents.

use clap::ValueEnum;

use crate::catalog;

use super::{DONE, Refusal, not_supported_yet};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which document.
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON Schema (2020-12) for invocations, results and each subtool.
    JsonSchema,
    /// Tool definitions for MCP (not supported yet).
    Mcp,
    /// Function tools for OpenAI's Responses API (not supported yet).
    Openai,
    /// AsyncAPI 3.0 with AMQP bindings (not supported yet).
    Asyncapi,
    /// A page for people.
    Markdown,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Refusal> {
    match arguments.format {
        Format::JsonSchema => println!("{:#}", catalog::json_schema()),
        Format::Markdown => print!("{}", catalog::markdown()),
        Format::Mcp => return Err(not_supported_yet("catalog --format mcp")),
        Format::Openai => return Err(not_supported_yet("catalog --format openai")),
        Format::Asyncapi => return Err(not_supported_yet("catalog --format asyncapi")),
    }
    Ok(DONE)
}
