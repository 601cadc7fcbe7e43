//! Conversion of our messages to lapin's and back. AMQP features that producers do not use are dropped.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::domain::message::{HeaderValue, Headers, Properties};

/// AMQP's persistent delivery mode: messages survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// The greatest nesting depth of headers; deeper ones are dropped, because no broker writes them.
const TABLE_DEPTH_MAX: usize = 8;

/// Converts the properties of a delivery. An empty text counts as absent.
pub(in crate::rabbit) fn properties_in(from: &BasicProperties) -> Properties {
    let text = |text: &Option<ShortString>| {
        text.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Properties {
        message_id: text(from.message_id()),
        correlation_id: text(from.correlation_id()),
        reply_to: text(from.reply_to()),
        user_id: text(from.user_id()),
        kind: text(from.kind()),
        content_type: text(from.content_type()),
        content_encoding: text(from.content_encoding()),
        timestamp: *from.timestamp(),
        expiration: text(from.expiration()),
        headers: from.headers().as_ref().map(|table| headers_in(table, TABLE_DEPTH_MAX)).unwrap_or_default(),
    }
}

fn headers_in(table: &FieldTable, depth: usize) -> Headers {
    table.inner().iter().map(|(name, value)| (name.to_string(), value_in(value, depth))).collect()
}

fn value_in(value: &AMQPValue, depth: usize) -> HeaderValue {
    match value {
        AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
        AMQPValue::ShortShortInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::ShortInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::ShortUInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::LongInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::LongUInt(value) => HeaderValue::Small((*value).into()),
        AMQPValue::LongLongInt(value) => HeaderValue::Int(*value),
        AMQPValue::Timestamp(value) => HeaderValue::Int(i64::try_from(*value).unwrap_or(i64::MAX)),
        AMQPValue::Float(value) => HeaderValue::Float((*value).into()),
        AMQPValue::Double(value) => HeaderValue::Float(*value),
        AMQPValue::DecimalValue(value) => {
            HeaderValue::Float(f64::from(value.value) / 10_f64.powi(value.scale.into()))
        }
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::LongString(text) => bytes_in(text.as_bytes()),
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => HeaderValue::Void,
        AMQPValue::FieldArray(items) => {
            HeaderValue::List(items.as_slice().iter().map(|item| value_in(item, depth - 1)).collect())
        }
        AMQPValue::FieldTable(table) => HeaderValue::Table(headers_in(table, depth - 1)),
        AMQPValue::Void => HeaderValue::Void,
    }
}

fn bytes_in(bytes: &[u8]) -> HeaderValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => HeaderValue::Text(text.to_owned()),
        Err(_) => HeaderValue::Bytes(bytes.to_vec()),
    }
}

/// Converts the properties of an outgoing message. A text too long for AMQP's short strings is left out: our own
/// texts are shorter, and echoed ones arrived as short strings.
pub(in crate::rabbit) fn properties_out(from: &Properties) -> BasicProperties {
    let short = |text: &Option<String>| text.as_deref().and_then(|text| ShortString::try_new(text).ok());
    let mut to = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! set {
        ($($with:ident($field:ident)),*) => {$(
            if let Some(text) = short(&from.$field) {
                to = to.$with(text);
            }
        )*};
    }
    set!(
        with_message_id(message_id),
        with_correlation_id(correlation_id),
        with_reply_to(reply_to),
        with_user_id(user_id),
        with_type(kind),
        with_content_type(content_type),
        with_content_encoding(content_encoding),
        with_expiration(expiration)
    );
    if let Some(timestamp) = from.timestamp {
        to = to.with_timestamp(timestamp);
    }
    if !from.headers.is_empty() {
        to = to.with_headers(headers_out(&from.headers));
    }
    to
}

fn headers_out(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, value_out(value));
        }
    }
    table
}

fn value_out(value: &HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        // Integers with fewer bits keep 32 where possible: RabbitMQ itself counts in 64.
        HeaderValue::Small(value) => {
            i32::try_from(*value).map_or(AMQPValue::LongLongInt(*value), AMQPValue::LongInt)
        }
        HeaderValue::Int(value) => AMQPValue::LongLongInt(*value),
        HeaderValue::Float(value) => AMQPValue::Double(*value),
        HeaderValue::Bool(value) => AMQPValue::Boolean(*value),
        HeaderValue::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_slice().into()),
        HeaderValue::List(items) => {
            AMQPValue::FieldArray(items.iter().map(value_out).collect::<Vec<_>>().into())
        }
        HeaderValue::Table(table) => AMQPValue::FieldTable(headers_out(table)),
        HeaderValue::Void => AMQPValue::Void,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_went() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let death = HeaderValue::Table([("queue".to_owned(), text("mine"))].into());
        let properties = Properties {
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("answers".into()),
            user_id: Some("u".into()),
            kind: Some("okta.result".into()),
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            timestamp: Some(1_700_000_000),
            expiration: Some("1000".into()),
            headers: [
                ("x-death".to_owned(), HeaderValue::List(vec![death])),
                ("n".to_owned(), HeaderValue::Int(-3)),
                ("small".to_owned(), HeaderValue::Small(-3)),
                ("yes".to_owned(), HeaderValue::Bool(true)),
                ("raw".to_owned(), HeaderValue::Bytes(vec![0xff])),
                ("half".to_owned(), HeaderValue::Float(0.5)),
                ("nothing".to_owned(), HeaderValue::Void),
            ]
            .into(),
        };
        assert_eq!(properties_in(&properties_out(&properties)), properties);
    }

    #[test]
    fn a_text_too_long_for_amqp_is_left_out() {
        let long = Properties { correlation_id: Some("x".repeat(256)), ..Properties::default() };
        assert_eq!(properties_in(&properties_out(&long)).correlation_id, None);
    }
}
