//! One page of a list, read item by item, so that a large page is held in memory only once.

use serde::Deserialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `take` for each item of a JSON array, in order and byte for byte. Returns `None` if the body is not one
/// complete array; `take` has then seen its beginning.
pub fn each_item(body: &[u8], take: impl FnMut(&RawValue)) -> Option<()> {
    let mut document = serde_json::Deserializer::from_slice(body);
    document.deserialize_seq(EachItem(take)).ok()?;
    document.end().ok()
}

/// Returns the `uuid` by which a list that may repeat items is deduplicated; `None` if the item has none.
pub fn uuid(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed {
        uuid: Option<String>,
    }
    let keyed: Keyed = serde_json::from_str(item.get()).ok()?;
    keyed.uuid.filter(|uuid| !uuid.is_empty())
}

struct EachItem<F>(F);

impl<'de, F: FnMut(&RawValue)> Visitor<'de> for EachItem<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            (self.0)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &str) -> Option<Vec<String>> {
        let mut items = Vec::new();
        each_item(body.as_bytes(), |item| items.push(item.get().to_owned())).map(|()| items)
    }

    #[test]
    fn items_keep_their_bytes() {
        assert_eq!(items(r#" [ {"a": 1e3} , 2,"x" ] "#).unwrap(), [r#"{"a": 1e3}"#, "2", r#""x""#]);
        assert_eq!(items("[]").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_one_whole_array_is_no_page() {
        for body in ["", "{}", "null", "1", "[1", "[1,]", "[1] 2", "<html>", "[1]]"] {
            assert_eq!(items(body), None, "{body}");
        }
    }

    #[test]
    fn an_item_is_told_by_its_uuid_if_it_has_one() {
        let key = |text: &str| uuid(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(key(r#"{"uuid":"u1","id":1}"#).as_deref(), Some("u1"));
        for text in [r#"{"id":1}"#, r#"{"uuid":""}"#, r#"{"uuid":7}"#, "1"] {
            assert_eq!(key(text), None, "{text}");
        }
    }
}
