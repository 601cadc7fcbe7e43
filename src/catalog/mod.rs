//! The catalogue as documents, for orchestrators and people, all from the same types.

mod json_schema;
mod markdown;

pub use json_schema::json_schema;
pub use markdown::markdown;
