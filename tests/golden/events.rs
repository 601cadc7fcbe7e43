//! `docs/events.md`: every event, its fields, and the metrics and log lines that come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use syn::visit::{self, Visit};

const FILE: &str = "docs/events.md";

fn parsed(path: &str) -> syn::File {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    syn::parse_file(&text).unwrap()
}

/// The doc comment of an item in one line.
fn doc(attributes: &[syn::Attribute]) -> String {
    let line = |attribute: &syn::Attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
        pair.path.is_ident("doc").then(|| text.value().trim().to_owned())
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn fields(fields: &syn::Fields) -> Vec<String> {
    let named = |field: &syn::Field| {
        let name = field.ident.as_ref()?;
        Some(format!("`{name}`: {}", doc(&field.attrs)))
    };
    fields.iter().filter_map(named).collect()
}

/// Everything that some code uses: fields of `self`, methods of `self`, functions and macros.
#[derive(Default)]
struct Used {
    fields: BTreeSet<String>,
    calls: BTreeSet<String>,
    macros: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Used {
    fn visit_expr_field(&mut self, field: &'ast syn::ExprField) {
        if let (syn::Expr::Path(base), syn::Member::Named(name)) = (&*field.base, &field.member)
            && base.path.is_ident("self")
        {
            self.fields.insert(name.to_string());
        }
        visit::visit_expr_field(self, field);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if matches!(&*call.receiver, syn::Expr::Path(base) if base.path.is_ident("self")) {
            self.calls.insert(call.method.to_string());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            self.calls.extend(function.path.get_ident().map(ToString::to_string));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.macros.extend(call.path.get_ident().map(ToString::to_string));
    }
}

/// The functions and methods of a file by name.
#[derive(Default)]
struct Functions<'ast>(BTreeMap<String, Vec<&'ast syn::Block>>);

impl<'ast> Visit<'ast> for Functions<'ast> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.0.entry(item.sig.ident.to_string()).or_default().push(&item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.0.entry(item.sig.ident.to_string()).or_default().push(&item.block);
    }
}

/// The arms of the first `match` of a function.
#[derive(Default)]
struct Arms<'ast>(Option<&'ast syn::ExprMatch>);

impl<'ast> Visit<'ast> for Arms<'ast> {
    fn visit_expr_match(&mut self, it: &'ast syn::ExprMatch) {
        self.0.get_or_insert(it);
    }
}

/// The variants that a pattern names.
#[derive(Default)]
struct Variants(BTreeSet<String>);

impl<'ast> Visit<'ast> for Variants {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() == 2 && path.segments[0].ident == "Event" {
            self.0.insert(path.segments[1].ident.to_string());
        }
    }
}

/// By event, what the arm of `function` in a file uses for it, by way of other functions of the file too.
fn uses(path: &str, function: &str) -> BTreeMap<String, Used> {
    let file = parsed(path);
    let mut functions = Functions::default();
    functions.visit_file(&file);
    let mut arms = Arms::default();
    functions.0[function].iter().for_each(|block| arms.visit_block(block));
    let mut found = BTreeMap::new();
    for arm in &arms.0.expect("it matches the event").arms {
        let mut variants = Variants::default();
        variants.visit_pat(&arm.pat);
        for variant in variants.0 {
            let (mut used, mut seen) = (Used::default(), BTreeSet::new());
            used.visit_expr(&arm.body);
            while let Some(call) = used.calls.iter().find(|call| !seen.contains(*call)).cloned() {
                functions.0.get(&call).into_iter().flatten().for_each(|block| used.visit_block(block));
                seen.insert(call);
            }
            let of_event: &mut Used = found.entry(variant).or_default();
            of_event.fields.extend(used.fields);
            of_event.macros.extend(used.macros);
        }
    }
    found
}

/// The first text or constant of an expression that may be the name of a metric.
struct FirstName<'a> {
    constants: &'a BTreeMap<String, String>,
    found: Option<String>,
}

impl FirstName<'_> {
    fn note(&mut self, text: &str) {
        let name = text.strip_prefix("okta_worker_").unwrap_or(text);
        if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            self.found.get_or_insert(name.to_owned());
        }
    }
}

impl<'ast> Visit<'ast> for FirstName<'_> {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.note(&text.value());
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let constant = path.path.get_ident().and_then(|name| self.constants.get(&name.to_string()));
        if let Some(value) = constant {
            self.note(value);
        }
    }
}

/// The metric of each field of `Metrics`: the first name in what the field is set to.
#[derive(Default)]
struct MetricNames {
    constants: BTreeMap<String, String>,
    metrics: BTreeMap<String, String>,
}

impl<'ast> Visit<'ast> for MetricNames {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &*item.expr {
            self.constants.insert(item.ident.to_string(), text.value());
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        let mut name = FirstName { constants: &self.constants, found: None };
        name.visit_expr(&field.expr);
        if let (syn::Member::Named(field), Some(name)) = (&field.member, name.found) {
            self.metrics.insert(field.to_string(), name);
        }
    }
}

fn page() -> String {
    let file = parsed("src/event.rs");
    let event = file.items.iter().find_map(|item| match item {
        syn::Item::Enum(item) if item.ident == "Event" => Some(item),
        _ => None,
    });
    let ended = file.items.iter().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == "InvocationEnded" => Some(item),
        _ => None,
    });
    let (counted, logged) =
        (uses("src/telemetry/metrics.rs", "note_at"), uses("src/telemetry/log.rs", "write"));
    let mut metrics = MetricNames::default();
    metrics.visit_file(&parsed("src/telemetry/metrics.rs"));
    let MetricNames { metrics, .. } = metrics;
    let mut text = String::from(
        "# Events\n\nWritten by `UPDATE_DOCS=1 cargo test --test golden` from `src/event.rs`: everything that a worker \
         reports. Metrics, log and health observe the same events. The names of metrics lack their prefix \
         `okta_worker_`; `/metrics` describes each metric. [messages.md](messages.md) defines terms such as lane and \
         bucket.\n\n\
         | event | when | fields | metrics | log level |\n|---|---|---|---|---|\n",
    );
    for variant in &event.unwrap().variants {
        let name = variant.ident.to_string();
        let of_event = match &variant.fields {
            syn::Fields::Unnamed(_) => fields(&ended.unwrap().fields),
            named => fields(named),
        };
        let of_metrics: Vec<_> = counted[&name]
            .fields
            .iter()
            .filter_map(|field| metrics.get(field))
            .map(|name| format!("`{name}`"))
            .collect();
        let levels = ["error", "warn", "info", "debug", "trace"];
        let levels: Vec<_> = levels
            .into_iter()
            .filter(|level| logged.get(&name).is_some_and(|used| used.macros.contains(*level)))
            .collect();
        let or_none = |text: String| if text.is_empty() { "–".to_owned() } else { text };
        writeln!(
            text,
            "| `{name}` | {} | {} | {} | {} |",
            doc(&variant.attrs),
            or_none(of_event.join("<br>")),
            or_none(of_metrics.join(", ")),
            or_none(levels.join(", ")),
        )
        .unwrap();
    }
    text
}

#[test]
fn the_page_of_events_is_what_the_sources_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == page(), "{FILE} is out of date: run `UPDATE_DOCS=1 cargo test --test golden`");
}
