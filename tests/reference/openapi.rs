//! Okta's OpenAPI document as a judge of requests and answers.
//!
//! OpenAPI 3.0 is almost JSON Schema. What differs is translated: `nullable` adds `null`; `readOnly`
//! properties may not be sent and `writeOnly` ones may not come back, and neither is then required; a
//! `discriminator` picks the one schema its property names, and none for a value Okta has added since.
//! A request may name nothing the document does not; an answer may, since Okta calls new fields harmless.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Map, Value, json};

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
}

/// The judge. Each fault is one sentence.
pub struct Validator {
    document: Value,
    /// The components for either way, translated.
    schemas: [Value; 2],
    compiled: RefCell<HashMap<String, Rc<jsonschema::Validator>>>,
}

/// An operation of the document.
struct Operation<'a> {
    /// `METHOD template`.
    name: String,
    operation: &'a Value,
    /// Parameters of path and operation.
    parameters: Vec<&'a Value>,
}

impl Validator {
    /// The judge with Okta's document, when it is there to be read.
    pub fn load() -> Option<Self> {
        let folder = super::reference()?;
        let read = |name: &str| -> Value {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            serde_json::from_str(&text).expect("the document is JSON")
        };
        let mut document = read("okta-28.openapi.json");
        add(&mut document, read("okta-more.openapi.json"));
        Some(Self::new(document))
    }

    /// The judge with this document.
    pub fn new(document: Value) -> Self {
        let schemas = [Way::Request, Way::Response].map(|way| components(&document, way));
        Self { document, schemas, compiled: RefCell::default() }
    }

    /// Judges a request; `path` is encoded, `query` is not.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(String, String)],
        body: Option<&[u8]>,
    ) -> Result<(), Vec<String>> {
        let operation = self.operation(method, path).map_err(|fault| vec![fault])?;
        let mut faults = self.query(&operation, query);
        let content = &self.resolved(&operation.operation["requestBody"])["content"]["application/json"];
        match (body, content.get("schema")) {
            (None, None) => {}
            (None, Some(_)) => {
                if operation.operation["requestBody"]["required"] == json!(true) {
                    faults.push("the body is missing".to_owned());
                }
            }
            (Some(_), None) => faults.push("a body where none is declared".to_owned()),
            (Some(body), Some(schema)) => {
                faults.extend(self.body(&operation.name, Way::Request, schema, body));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Judges an answer.
    pub fn response(&self, method: &str, path: &str, status: u16, body: &[u8]) -> Result<(), Vec<String>> {
        let operation = self.operation(method, path).map_err(|fault| vec![fault])?;
        let declared = self.resolved(&operation.operation["responses"][status.to_string()]);
        let faults = match status {
            200..=299 if declared.is_null() => vec![format!("status {status} is not declared")],
            200..=299 => match declared["content"]["application/json"].get("schema") {
                Some(schema) => {
                    self.body(&format!("{} {status}", operation.name), Way::Response, schema, body)
                }
                // Okta declares no body for lifecycle steps and sends `{}` (recorded).
                None if body.is_empty() || (status == 200 && body == b"{}") => Vec::new(),
                None => vec!["a body where none is declared".to_owned()],
            },
            // Okta's gateway says some refusals in `WWW-Authenticate` alone.
            401 | 403 if body.is_empty() => Vec::new(),
            _ => {
                let error = json!({
                    "allOf": [{ "$ref": "#/components/schemas/Error" }],
                    "type": "object",
                    "required": ["errorCode", "errorSummary", "errorLink", "errorId", "errorCauses"],
                });
                self.body("error", Way::Response, &error, body)
            }
        };
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The operation of a method and a filled path.
    fn operation(&self, method: &str, path: &str) -> Result<Operation<'_>, String> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let names: Vec<&str> = template.split('/').collect();
            names.len() == parts.len()
                && names
                    .iter()
                    .zip(&parts)
                    .all(|(name, part)| if name.starts_with('{') { !part.is_empty() } else { name == part })
        };
        let paths = self.document["paths"].as_object().expect("the document has paths");
        let (template, item) = paths
            .iter()
            .filter(|(template, _)| fits(template))
            .min_by_key(|(template, _)| template.matches('{').count())
            .ok_or_else(|| format!("no such path: {}", path_shape(&parts)))?;
        let name = format!("{method} {template}");
        let operation =
            item.get(method.to_lowercase()).ok_or_else(|| format!("no such operation: {name}"))?;
        let parameters = [&item["parameters"], &operation["parameters"]]
            .into_iter()
            .flat_map(|list| list.as_array().into_iter().flatten())
            .map(|parameter| self.resolved(parameter))
            .collect();
        Ok(Operation { name, operation, parameters })
    }

    fn query(&self, operation: &Operation<'_>, query: &[(String, String)]) -> Vec<String> {
        let declared: Vec<&Value> =
            operation.parameters.iter().copied().filter(|parameter| parameter["in"] == "query").collect();
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, text) in query {
            if !seen.insert(name.as_str()) {
                faults.push(format!("query `{name}` stands there twice"));
            }
            let Some(parameter) = declared.iter().find(|parameter| parameter["name"] == name.as_str()) else {
                faults.push(format!("query `{name}` is not declared"));
                continue;
            };
            let schema = self.resolved(&parameter["schema"]);
            let value = match schema["type"].as_str() {
                Some("integer") => text.parse::<i64>().ok().map(Value::from),
                Some("number") => text.parse::<f64>().ok().map(Value::from),
                Some("boolean") => text.parse::<bool>().ok().map(Value::from),
                _ => Some(Value::from(text.as_str())),
            };
            match value {
                None => faults.push(format!("query `{name}`: `{text}` is no {}", schema["type"])),
                Some(value) => {
                    let key = format!("{} query {name}", operation.name);
                    let found = self.check(&key, Way::Request, &parameter["schema"], &value);
                    faults.extend(found.into_iter().map(|fault| format!("query `{name}`: {fault}")));
                }
            }
        }
        for parameter in declared {
            let name = parameter["name"].as_str().expect("a parameter has a name");
            if parameter["required"] == json!(true) && !seen.contains(name) {
                faults.push(format!("query `{name}` is missing"));
            }
        }
        faults
    }

    fn body(&self, key: &str, way: Way, schema: &Value, body: &[u8]) -> Vec<String> {
        match serde_json::from_slice(body) {
            Ok(value) => self.check(&format!("{key} body"), way, schema, &value),
            Err(error) => vec![format!("the body is not JSON: {error}")],
        }
    }

    fn check(&self, key: &str, way: Way, schema: &Value, value: &Value) -> Vec<String> {
        let compiled = self.compiled.borrow().get(key).cloned();
        let validator = compiled.unwrap_or_else(|| {
            let mut root = match way {
                Way::Request => closed(&self.document, schema, way),
                Way::Response => translated(&self.document, schema, way),
            };
            root["components"] = json!({ "schemas": self.schemas[way as usize] });
            let validator = Rc::new(jsonschema::draft202012::new(&root).expect("a schema"));
            self.compiled.borrow_mut().insert(key.to_owned(), Rc::clone(&validator));
            validator
        });
        let faults: Vec<(String, String)> = validator
            .iter_errors(value)
            .map(|error| (error.instance_path().to_string(), error.to_string().chars().take(300).collect()))
            .collect();
        // What does not fit counts as undeclared one level up, too: only the first reason says something.
        let is_echo = |path: &str, text: &str| {
            let below = format!("{path}/");
            let is_reason = |(other, reason): &(String, String)| {
                other.starts_with(&below) || (other == path && !reason.starts_with("Unevaluated"))
            };
            text.starts_with("Unevaluated") && faults.iter().any(is_reason)
        };
        let own = faults.iter().filter(|(path, text)| !is_echo(path, text));
        own.map(|(path, text)| format!("{path}: {text}")).collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        resolved(&self.document, value)
    }
}

/// Adds what a document has and the other has not: paths, operations, components.
fn add(document: &mut Value, more: Value) {
    let (Value::Object(there), Value::Object(more)) = (document, more) else { return };
    for (name, value) in more {
        match there.get_mut(&name) {
            Some(known) => add(known, value),
            None => drop(there.insert(name, value)),
        }
    }
}

/// A path without the ids in it, so that faults read the same whoever is meant.
fn path_shape(parts: &[&str]) -> String {
    let shape = |part: &&str| {
        let is_id = part.contains(|c: char| c.is_ascii_digit() || c == '%') && *part != "v1";
        if is_id { "{}".to_owned() } else { (*part).to_owned() }
    };
    parts.iter().map(shape).collect::<Vec<_>>().join("/")
}

/// What a `$ref` stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer = reference.trim_start_matches('#');
            let target = document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"));
            resolved(document, target)
        }
        None => value,
    }
}

/// The components' schemas, translated. A schema that dispatches on a discriminator stands there twice:
/// the bare one, `name~`, is what the others inherit from.
fn components(document: &Value, way: Way) -> Value {
    let mut all = Map::new();
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        if schema.get("discriminator").is_some() {
            let mut bare = schema.clone();
            for key in ["discriminator", "oneOf", "anyOf"] {
                bare.as_object_mut().expect("a schema is an object").remove(key);
            }
            all.insert(format!("{name}~"), translated(document, &bare, way));
        }
        all.insert(name.clone(), translated(document, schema, way));
    }
    Value::Object(all)
}

/// An OpenAPI 3.0 schema as JSON Schema.
fn translated(document: &Value, schema: &Value, way: Way) -> Value {
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    let mut conditions = Vec::new();
    for (key, value) in object {
        match key.as_str() {
            // Annotations, and formats whose names Okta makes up.
            "nullable" | "readOnly" | "writeOnly" | "format" | "default" | "example" | "description"
            | "title" | "deprecated" => {}
            "discriminator" => {
                let property = value["propertyName"].as_str().expect("a discriminator names a property");
                for (name, target) in value["mapping"].as_object().into_iter().flatten() {
                    conditions.push(json!({
                        "if": { "properties": { property: { "const": name } }, "required": [property] },
                        "then": { "$ref": target },
                    }));
                }
            }
            "oneOf" | "anyOf" if object.contains_key("discriminator") => {}
            "properties" => {
                let properties =
                    value.as_object().into_iter().flatten().map(|(name, property)| {
                        (name.clone(), property_schema(document, name, property, way))
                    });
                out.insert(key.clone(), Value::Object(properties.collect()));
            }
            "required" => {
                let names = value.as_array().into_iter().flatten().filter(|name| {
                    let name = name.as_str().unwrap_or_default();
                    !is_barred(document, &object.get("properties").unwrap_or(&Value::Null)[name], way)
                });
                out.insert(key.clone(), names.cloned().collect());
            }
            "items" | "additionalProperties" | "not" => {
                out.insert(key.clone(), translated(document, value, way));
            }
            "allOf" | "anyOf" | "oneOf" => {
                let branches = value.as_array().into_iter().flatten().map(|branch| {
                    let inherits = key == "allOf"
                        && branch.get("$ref").is_some()
                        && resolved(document, branch).get("discriminator").is_some();
                    match branch["$ref"].as_str() {
                        Some(reference) if inherits => json!({ "$ref": format!("{reference}~") }),
                        _ => translated(document, branch, way),
                    }
                });
                out.insert(key.clone(), branches.collect());
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    if !conditions.is_empty() {
        let all = out.entry("allOf").or_insert_with(|| json!([]));
        all.as_array_mut().expect("allOf is a list").extend(conditions);
    }
    if object.get("nullable") == Some(&json!(true)) {
        return or_null(Value::Object(out));
    }
    Value::Object(out)
}

/// What a property may be. Okta sends `null` for almost anything that is not there, documented or not
/// (recorded in list_events.jsonl and list_apps.jsonl), only an id is never missing.
fn property_schema(document: &Value, name: &str, property: &Value, way: Way) -> Value {
    match way {
        _ if is_barred(document, property, way) => Value::Bool(false),
        Way::Request => closed(document, property, way),
        Way::Response if name == "id" => translated(document, property, way),
        Way::Response => or_null(translated(document, property, way)),
    }
}

/// The same or `null`, said so that a fault still names what is wrong.
fn or_null(mut schema: Value) -> Value {
    match schema.as_object_mut() {
        Some(object) if object.get("type").is_some_and(Value::is_string) && !object.contains_key("allOf") => {
            object["type"] = json!([object["type"], "null"]);
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.push(Value::Null);
            }
            schema
        }
        _ => json!({ "if": { "not": { "type": "null" } }, "then": schema }),
    }
}

/// Whether a property may not be in a body that goes this way.
fn is_barred(document: &Value, property: &Value, way: Way) -> bool {
    let key = match way {
        Way::Request => "readOnly",
        Way::Response => "writeOnly",
    };
    property.get(key).or_else(|| resolved(document, property).get(key)) == Some(&json!(true))
}

/// The same, and nothing that is not declared: a misspelt field is otherwise sent in vain.
fn closed(document: &Value, schema: &Value, way: Way) -> Value {
    let target = resolved(document, schema);
    let is_free = ["properties", "allOf", "anyOf", "oneOf"].iter().all(|key| target.get(key).is_none());
    let translated = translated(document, schema, way);
    if is_free {
        return translated;
    }
    json!({ "allOf": [translated], "unevaluatedProperties": false })
}

/// A request as it stands in a table.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>, &'a str);

/// What the judge says, `ok` or the faults.
fn verdict(validator: &Validator, (method, path, query, body, _): &Row<'_>) -> String {
    let query: Vec<(String, String)> =
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match validator.request(method, path, &query, body.map(str::as_bytes)) {
        Ok(()) => "ok".to_owned(),
        Err(faults) => faults.join("; "),
    }
}

#[test]
fn the_judge_bites() {
    let Some(validator) = Validator::load() else { return };
    let rows: [Row<'_>; 20] = [
        ("GET", "/api/v1/users", &[("limit", "200"), ("search", "status pr")], None, "ok"),
        ("GET", "/api/v1/users", &[("limits", "200")], None, "query `limits` is not declared"),
        ("GET", "/api/v1/users", &[("limit", "many")], None, "query `limit`: `many` is no \"integer\""),
        ("GET", "/api/v1/users", &[("q", "a"), ("q", "b")], None, "query `q` stands there twice"),
        (
            "GET",
            "/api/v1/apps",
            &[("limit", "201")],
            None,
            "query `limit`: : 201 is greater than the maximum of 200",
        ),
        (
            "GET",
            "/api/v1/logs",
            &[("sortOrder", "desc")],
            None,
            r#"query `sortOrder`: : "desc" is not one of "ASCENDING" or "DESCENDING""#,
        ),
        ("POST", "/api/v1/users/00u1/lifecycle/reset_password", &[], None, "query `sendEmail` is missing"),
        (
            "POST",
            "/api/v1/users/00u1/lifecycle/activate",
            &[("sendEmail", "no")],
            None,
            "query `sendEmail`: `no` is no \"boolean\"",
        ),
        ("PATCH", "/api/v1/users/00u1", &[], None, "no such operation: PATCH /api/v1/users/{id}"),
        ("GET", "/api/v1/user/00u1", &[], None, "no such path: /api/v1/user/{}"),
        ("GET", "/api/v1/users//groups", &[], None, "no such path: /api/v1/users//groups"),
        ("POST", "/api/v1/users", &[], None, "the body is missing"),
        (
            "POST",
            "/api/v1/users",
            &[],
            Some("{"),
            "the body is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("POST", "/api/v1/users", &[], Some("{}"), r#": "profile" is a required property"#),
        (
            "POST",
            "/api/v1/users",
            &[],
            Some(r#"{"profile":{"firstName":7}}"#),
            r#"/profile/firstName: 7 is not of types "null", "string""#,
        ),
        (
            "POST",
            "/api/v1/users",
            &[],
            Some(r#"{"profile":{},"group_ids":[]}"#),
            ": Unevaluated properties are not allowed ('group_ids' was unexpected)",
        ),
        (
            "POST",
            "/api/v1/apps/0oa1/users",
            &[],
            Some(r#"{"scope":"USER"}"#),
            r#": "id" is a required property"#,
        ),
        (
            "POST",
            "/api/v1/apps/0oa1/users",
            &[],
            Some(r#"{"id":"00u1","externalId":"x"}"#),
            r#"/externalId: False schema does not allow "x""#,
        ),
        ("PUT", "/api/v1/groups/00g1/users/00u1", &[], Some("{}"), "a body where none is declared"),
        ("PUT", "/api/v1/groups/00g1", &[], Some(r#"{"profile":{"name":"x","description":null}}"#), "ok"),
    ];
    for row in &rows {
        assert_eq!(verdict(&validator, row), row.4, "{} {} {:?}", row.0, row.1, row.3);
    }
}

#[test]
fn the_judge_bites_answers_too() {
    let Some(validator) = Validator::load() else { return };
    let error = r#"{"errorCode":"E0000007","errorSummary":"s","errorLink":"E0000007","errorId":"i","errorCauses":[]}"#;
    let rows: [(&str, &str, u16, &str, bool); 14] = [
        ("GET", "/api/v1/users/00u1", 200, r#"{"id":"00u1","status":"ACTIVE","new":1}"#, true),
        ("GET", "/api/v1/users/00u1", 200, r#"{"id":1}"#, false),
        ("GET", "/api/v1/users/00u1", 200, r#"{"lastLogin":null}"#, true),
        ("GET", "/api/v1/users/00u1", 200, r#"{"credentials":{"password":{"value":"x"}}}"#, false),
        ("GET", "/api/v1/users", 200, "{}", false),
        ("POST", "/api/v1/users", 201, "{}", false),
        ("POST", "/api/v1/users/00u1/lifecycle/suspend", 200, "{}", true),
        ("POST", "/api/v1/users/00u1/lifecycle/suspend", 200, r#"{"id":"00u1"}"#, false),
        ("DELETE", "/api/v1/users/00u1", 204, "", true),
        ("DELETE", "/api/v1/users/00u1", 204, "{}", false),
        ("GET", "/api/v1/users/00u1", 404, error, true),
        ("GET", "/api/v1/users/00u1", 409, error, true),
        ("GET", "/api/v1/users/00u1", 404, r#"{"errorCode":"E0000007"}"#, false),
        ("GET", "/api/v1/apps/0oa1", 200, r#"{"label":"x","signOnMode":"BOOKMARK"}"#, false),
    ];
    for (method, path, status, body, is_valid) in rows {
        let verdict = validator.response(method, path, status, body.as_bytes());
        assert_eq!(verdict.is_ok(), is_valid, "{method} {path} {status} {body}: {verdict:?}");
    }
}
