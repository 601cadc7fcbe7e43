//! `okta-worker catalog`: the definitions of the subtools as documents.

use clap::ValueEnum;

use crate::catalog;
use crate::tools::catalogue::{CATALOGUE, CatalogueEntry, find};
use crate::tools::hint::unknown;

use super::completions;
use super::exit::{DONE, NotBegun};
use super::output::say;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The one subtool to describe, such as `get_user`; without it, all of them.
    #[arg(value_name = "SUBTOOL", add = completions::subtools())]
    subtool: Option<String>,
    /// The format of the document.
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
    if let Some(name) = &arguments.subtool {
        let entry = find(name).ok_or_else(|| NotBegun(unknown(name)))?;
        say(describe(entry, arguments.format)?.as_bytes());
        return Ok(DONE);
    }
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

/// Describes one subtool.
fn describe(entry: &'static CatalogueEntry, format: Format) -> Result<String, NotBegun> {
    Ok(match format {
        Format::JsonSchema => format!("{:#}\n", catalog::json_schema_of(entry)),
        Format::Markdown => catalog::markdown_of(entry),
        Format::Mcp => format!("{:#}\n", catalog::mcp::tool(entry)),
        Format::Openai => format!("{:#}\n", catalog::openai::tool(entry)),
        Format::Asyncapi => {
            return Err(NotBegun(
                "`--format asyncapi` describes queues and messages, and not one subtool".to_owned(),
            ));
        }
    })
}
