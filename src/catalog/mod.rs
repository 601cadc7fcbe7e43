//! The catalogue as documents, for orchestrators and people, all derived from the same types.

mod asyncapi;
mod json_schema;
mod markdown;
pub mod mcp;
mod message;
pub mod openai;
mod options;
mod schema;

pub use asyncapi::asyncapi;
pub use json_schema::{json_schema, json_schema_of};
pub use markdown::{markdown, markdown_of};
