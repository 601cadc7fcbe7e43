//! Figures of how readable the sources are, printed and bounded: names, documentation, sizes, import cycles.
//!
//! `cargo test --test figures -- --nocapture` prints them with every place that counts. The bounds are what the sources
//! have now: a figure may fall, and its bound with it, and never rise.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const NAMES_TWICE_PERCENT_MAX: f64 = 1.0;
const QUESTIONS_PERCENT_MAX: f64 = 3.0;
const LONG_FUNCTIONS_PERCENT_MAX: f64 = 2.0;

/// The most lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 40;

/// Words that begin a doc comment which asks instead of saying.
const QUESTIONS: [&str; 6] = ["What", "Whether", "How", "Who", "When", "Where"];

/// One source file without its tests.
struct Source {
    /// The module path, such as `["worker", "gate", "line"]`; of a `mod.rs`, that of its folder.
    module: Vec<String>,
    /// The path from the root.
    path: String,
    text: String,
    syntax: syn::File,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test")))
    })
}

/// Tells whether an item of a file is for its tests alone.
fn is_for_tests(item: &syn::Item) -> bool {
    is_test(match item {
        syn::Item::Fn(it) => &it.attrs,
        syn::Item::Mod(it) => &it.attrs,
        syn::Item::Impl(it) => &it.attrs,
        syn::Item::Use(it) => &it.attrs,
        syn::Item::Struct(it) => &it.attrs,
        syn::Item::Const(it) => &it.attrs,
        _ => return false,
    })
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    found.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let mut syntax = syn::parse_file(&text).unwrap();
        syntax.items.retain(|item| !is_for_tests(item));
        let below = path.strip_prefix(root.join("src")).unwrap().with_extension("");
        let mut module: Vec<_> = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
            module.pop();
        }
        let path = path.strip_prefix(root).unwrap().display().to_string();
        Source { module, path, text, syntax }
    };
    found.iter().map(read).filter(|source| source.path != "src/main.rs").collect()
}

/// Prints a figure with its places and returns their share in percent.
fn figure(name: &str, aim: &str, places: &[String], of: usize) -> f64 {
    let share = 100.0 * places.len() as f64 / of.max(1) as f64;
    println!("{name}: {} of {of} ({share:.2} %), to become {aim}", places.len());
    for place in places {
        println!("    {place}");
    }
    share
}

/// The leaves of a `use`: the full path of each and its new name, if it has one.
fn leaves(tree: &syn::UseTree, before: &[String], found: &mut Vec<(Vec<String>, Option<String>)>) {
    let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), found),
        syn::UseTree::Name(name) => found.push((with(&name.ident), None)),
        syn::UseTree::Rename(rename) => found.push((with(&rename.ident), Some(rename.rename.to_string()))),
        syn::UseTree::Glob(_) => found.push(([before, &["*".to_owned()]].concat(), None)),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, before, found)),
    }
}

#[test]
fn none_of_our_types_is_imported_under_another_name() {
    let mut places = Vec::new();
    let mut uses = 0;
    for source in sources() {
        for item in &source.syntax.items {
            let syn::Item::Use(item) = item else { continue };
            let mut found = Vec::new();
            leaves(&item.tree, &[], &mut found);
            uses += found.len();
            for (path, rename) in found {
                let is_ours = ["crate", "super", "self"].contains(&path[0].as_str());
                if let Some(rename) = rename.filter(|name| is_ours && name != "_") {
                    places.push(format!("{}: {} as {rename}", source.path, path.join("::")));
                }
            }
        }
    }
    figure("imports under another name", "0", &places, uses);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn a_type_name_means_one_thing() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for item in &source.syntax.items {
            let name = match item {
                syn::Item::Struct(item) => &item.ident,
                syn::Item::Enum(item) => &item.ident,
                syn::Item::Trait(item) => &item.ident,
                syn::Item::Type(item) => &item.ident,
                _ => continue,
            };
            places.entry(name.to_string()).or_default().insert(source.path.clone());
        }
    }
    let of = places.len();
    let twice = places.iter().filter(|(_, files)| files.len() > 1);
    let twice: Vec<_> = twice.map(|(name, files)| format!("{name}: {files:?}")).collect();
    let share = figure("type names used twice", "8 %", &twice, of);
    assert!(share <= NAMES_TWICE_PERCENT_MAX, "{share:.1} %");
}

/// Collects what a file says and holds.
#[derive(Default)]
struct Reader {
    functions: Vec<(String, usize, usize)>,
}

impl Reader {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let lines = body.brace_token.span.close().end().line + 1 - first;
        self.functions.push((signature.ident.to_string(), first, lines));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

/// Returns the first line of each doc comment in a text, with its line number.
fn doc_openings(text: &str) -> Vec<(usize, &str)> {
    let mut before = "";
    let mut openings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let is_doc = |line: &str| line.starts_with("///") || line.starts_with("//!");
        if is_doc(line) && !is_doc(before) {
            openings.push((number + 1, line[3..].trim()));
        }
        before = line;
    }
    openings
}

/// The lines of a file up to its tests at the end.
fn without_tests(text: &str) -> &str {
    text.rfind("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

#[test]
fn documentation_says_instead_of_asking() {
    let mut places = Vec::new();
    let mut of = 0;
    for source in sources() {
        for (line, opening) in doc_openings(without_tests(&source.text)) {
            of += 1;
            let first = opening.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if QUESTIONS.contains(&first) {
                places.push(format!("{}:{line}: {opening}", source.path));
            }
        }
    }
    let share = figure("doc comments that open with a question word", "3 %", &places, of);
    assert!(share <= QUESTIONS_PERCENT_MAX, "{share:.1} %");
}

#[test]
fn functions_fit_on_a_screen() {
    let mut places = Vec::new();
    let mut of = 0;
    for source in sources() {
        let mut reader = Reader::default();
        reader.visit_file(&source.syntax);
        of += reader.functions.len();
        for (name, line, lines) in reader.functions {
            if lines > FUNCTION_LINES_MAX {
                places.push(format!("{}:{line}: {name} has {lines} lines", source.path));
            }
        }
    }
    let share = figure("functions over 40 lines", "2 %", &places, of);
    assert!(share <= LONG_FUNCTIONS_PERCENT_MAX, "{share:.1} %");
}

/// Collects the files of a folder that one of them imports.
struct Imports<'a> {
    /// The module of the folder.
    folder: &'a [String],
    own: &'a Source,
    /// The files and subfolders of the folder.
    children: &'a BTreeSet<String>,
    /// By the name of an item that the folder's `mod.rs` re-exports: the child that it comes from.
    exported: &'a BTreeMap<String, String>,
    found: BTreeSet<String>,
}

/// The node of a folder's own `mod.rs`.
const PARENT: &str = "mod.rs";

impl Imports<'_> {
    /// Notes a path as written in the file.
    fn note(&mut self, path: &[String]) {
        let mut at = match path[0].as_str() {
            "crate" => Vec::new(),
            "super" => self.own.module[..self.own.module.len().saturating_sub(1)].to_vec(),
            "self" => self.own.module.clone(),
            // A bare name of a child in its parent.
            first if self.own.module == self.folder && self.children.contains(first) => {
                self.found.insert(first.to_owned());
                return;
            }
            _ => return,
        };
        let mut rest = &path[1..];
        while rest.first().is_some_and(|next| next == "super") {
            at.pop();
            rest = &rest[1..];
        }
        at.extend(rest.iter().cloned());
        let Some([child, ..]) = at.strip_prefix(self.folder) else { return };
        let node = if self.children.contains(child) {
            child.clone()
        } else {
            self.exported.get(child).cloned().unwrap_or_else(|| PARENT.to_owned())
        };
        self.found.insert(node);
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_export = self.own.module == self.folder && !matches!(item.vis, syn::Visibility::Inherited);
        if is_export {
            return; // a parent that re-exports its children is no cycle
        }
        let mut found = Vec::new();
        leaves(&item.tree, &[], &mut found);
        found.iter().for_each(|(path, _)| self.note(path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let path: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.note(&path);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

/// By name of an item that a `mod.rs` re-exports, the child that it comes from.
fn exported(parent: Option<&Source>, children: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut exported = BTreeMap::new();
    for item in parent.into_iter().flat_map(|parent| &parent.syntax.items) {
        let syn::Item::Use(item) = item else { continue };
        let mut found = Vec::new();
        leaves(&item.tree, &[], &mut found);
        for (path, rename) in found {
            let path = path.strip_prefix(&["self".to_owned()]).unwrap_or(&path);
            if children.contains(&path[0]) {
                let name = rename.unwrap_or_else(|| path.last().unwrap().clone());
                exported.insert(name, path[0].clone());
            }
        }
    }
    exported
}

/// The files of a folder that import each other in a circle.
fn cycle_groups(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(node) = open.pop() {
            for next in graph.get(&node).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|node| (node.clone(), reach(node))).collect();
    let mut groups = BTreeSet::new();
    for (node, reaches) in &reached {
        let back = reaches.iter().filter(|other| *other == node || reached[*other].contains(node));
        let group: BTreeSet<_> = back.cloned().chain([node.clone()]).collect();
        if group.len() > 1 {
            groups.insert(group.into_iter().collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

/// The import graph of one folder, whose children are files or subfolders.
fn graph_of(folder: &[String], all: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let below = |source: &&Source| source.module.starts_with(folder);
    let children: BTreeSet<_> =
        all.iter().filter(below).filter_map(|source| source.module.get(folder.len()).cloned()).collect();
    let parent = all.iter().find(|source| source.module == folder);
    let exported = exported(parent, &children);
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for own in all.iter().filter(below) {
        let node = own.module.get(folder.len()).cloned().unwrap_or_else(|| PARENT.to_owned());
        let found = BTreeSet::new();
        let mut imports = Imports { folder, own, children: &children, exported: &exported, found };
        imports.visit_file(&own.syntax);
        imports.found.remove(&node);
        graph.entry(node).or_default().extend(imports.found);
    }
    let nodes: BTreeSet<_> = graph.values().flatten().cloned().collect();
    for node in nodes {
        graph.entry(node).or_default();
    }
    graph
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_circles() {
    let all = sources();
    let folders: BTreeSet<_> =
        all.iter().flat_map(|source| (0..source.module.len()).map(|n| source.module[..n].to_vec())).collect();
    let mut places = Vec::new();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        for group in cycle_groups(&graph_of(folder, &all)) {
            places.push(format!("src/{}: {} files: {}", folder.join("/"), group.len(), group.join(", ")));
        }
    }
    figure("import cycles", "0", &places, folders.len());
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        cycle_groups(&graph)
    };
    assert_eq!(graph(&[("a", "b"), ("b", "c"), ("a", "c")]), Vec::<Vec<String>>::new());
    assert_eq!(graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]), [["a", "b", "c"]]);
}
