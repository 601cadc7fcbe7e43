//! One page of a list: its items as raw JSON, cut to the wanted fields.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::Fields;

/// The items of one answer.
#[derive(Debug, Clone)]
pub struct Page {
    /// The items, cut to the wanted fields.
    pub items: Vec<Box<RawValue>>,
    /// What tells an item from another, for lists that may repeat one; as many as items, or none.
    pub keys: Vec<String>,
    /// The bytes of all items together.
    pub bytes: usize,
}

impl Page {
    /// Reads a JSON array; `None` when the body is none. `with_keys` also reads each item's `uuid`.
    pub fn read(body: &[u8], fields: &Fields, with_keys: bool) -> Option<Self> {
        #[derive(Deserialize)]
        struct Keyed {
            #[serde(default)]
            uuid: String,
        }
        let raw: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
        let keys = if with_keys {
            let key = |item: &&RawValue| {
                serde_json::from_str::<Keyed>(item.get()).map_or_else(|_| String::new(), |k| k.uuid)
            };
            raw.iter().map(key).collect()
        } else {
            Vec::new()
        };
        let items: Vec<_> = raw.into_iter().map(|item| fields.project(item)).collect();
        let bytes = items.iter().map(|item| item.get().len()).sum();
        Some(Self { items, keys, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_bytes() {
        let page = Page::read(br#" [ {"a": 1e3} , 2,"x" ] "#, &Fields::Whole, false).unwrap();
        let items: Vec<&str> = page.items.iter().map(|item| item.get()).collect();
        assert_eq!(items, [r#"{"a": 1e3}"#, "2", r#""x""#]);
        assert_eq!(page.bytes, 14);
        assert!(Page::read(b"{}", &Fields::Whole, false).is_none());
    }

    #[test]
    fn keys_are_read_before_fields_are_cut() {
        let fields = Fields::parse(&["id".into()]).unwrap();
        let page = Page::read(br#"[{"uuid":"u1","id":1},{"id":2}]"#, &fields, true).unwrap();
        assert_eq!(page.keys, ["u1", ""]);
        assert_eq!(page.items[0].get(), r#"{"id":1}"#);
    }
}
