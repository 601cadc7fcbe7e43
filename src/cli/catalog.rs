//! `okta-worker catalog`: the definitions of the 28 as documents.

use clap::ValueEnum;

use crate::catalog;
use crate::tools::catalogue::CATALOGUE;

use super::exit::{DONE, NotBegun};
use super::output::say;

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
    /// Tools of the Model Context Protocol, as `tools/list` answers.
    Mcp,
    /// Function tools of OpenAI's Responses API, for its field `tools`.
    Openai,
    /// AsyncAPI 3.0 with AMQP bindings: exchanges, queues and messages.
    Asyncapi,
    /// A page for people.
    Markdown,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, NotBegun> {
    let text = match arguments.format {
        Format::JsonSchema => format!("{:#}\n", catalog::json_schema()),
        Format::Markdown => catalog::markdown(),
        Format::Mcp => format!("{:#}\n", catalog::mcp::tools(&CATALOGUE)),
        Format::Openai => format!("{:#}\n", catalog::openai::tools(&CATALOGUE)),
        Format::Asyncapi => format!("{:#}\n", catalog::asyncapi()),
    };
    say(text.as_bytes());
    Ok(DONE)
}
