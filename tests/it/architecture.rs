//! The rooms of `src/` and who may know whom, as `docs/architecture.md` says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{ItemMod, Macro, UseTree, Visibility};

/// A room, and the rooms that it may name. `lib.rs` names all, `main.rs` is not a room.
const ROOMS: &[(&str, &[&str])] = &[
    ("cli", EVERY),
    ("app", EVERY),
    (
        "http",
        &[
            "actor",
            "auth",
            "crypto",
            "domain",
            "faults",
            "settings",
            "shares",
            "store",
            "telemetry",
        ],
    ),
    ("actor", &["crypto", "domain", "faults", "shares", "store"]),
    ("auth", &["client", "crypto", "domain", "store"]),
    ("keys", &["crypto", "domain", "store"]),
    ("relay", &["backoff", "broker", "domain", "faults", "store"]),
    ("broker", &["domain"]),
    (
        "audit",
        &[
            "backoff", "broker", "crypto", "domain", "faults", "client", "store",
        ],
    ),
    ("client", &["backoff", "domain"]),
    (
        "store",
        &["backoff", "crypto", "domain", "faults", "shares"],
    ),
    ("crypto", &["domain", "files"]),
    ("domain", &[]),
    ("settings", &["domain"]),
    ("shares", &["domain"]),
    ("telemetry", &["settings"]),
    ("backoff", &[]),
    ("files", &[]),
    ("faults", &[]),
];
const EVERY: &[&str] = &[
    "app",
    "http",
    "actor",
    "auth",
    "keys",
    "relay",
    "broker",
    "audit",
    "client",
    "store",
    "crypto",
    "domain",
    "settings",
    "shares",
    "telemetry",
    "backoff",
    "faults",
    "files",
    "cli",
];

/// A crate, and where it may be named: rooms, or files of one.
const CRATES: &[(&str, &[&str])] = &[
    ("orion", &["crypto"]),
    ("ring", &["crypto"]),
    ("sea_orm", &["store", "audit"]),
    ("sea_orm_migration", &["store"]),
    ("migration", &["store", "audit"]),
    ("sqlx", &["store"]),
    ("sea_query_sqlx", &["store"]),
    ("lapin", &["broker"]),
    ("reqwest", &["client"]),
    ("actix", &["actor", "cli/serve.rs"]),
    ("actix_web", &["http", "app.rs"]),
    ("actix_http", &["http"]),
    ("actix_server", &["http"]),
    ("actix_service", &["http"]),
    ("rustls", &["http"]),
    ("tokio_rustls", &["http"]),
];

/// The most lines that a file of `src/` may have, its tests included.
const LINES: usize = 450;

/// The most places that may take a result inside a result apart: where a timeout or a joined task leaves one.
const NESTED: usize = 6;

#[test]
fn every_room_names_only_the_rooms_that_it_may_know() {
    let allowed: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    for (file, named) in sources() {
        let room = room(&file);
        if matches!(room, "lib" | "main") {
            continue;
        }
        let allowed = allowed.get(room).unwrap_or_else(|| {
            panic!("src/{file}: the room {room} has no row in ROOMS: decide whom it may know")
        });
        for other in named.rooms.iter().filter(|other| *other != room) {
            assert!(
                allowed.contains(&other.as_str()),
                "src/{file} names crate::{other}, and {room} may know only {allowed:?}: turn the \
                 dependency around, or change docs/architecture.md and this table with a reason"
            );
        }
    }
}

#[test]
fn every_row_is_of_a_room_that_stands() {
    let standing: BTreeSet<_> = sources()
        .iter()
        .map(|(file, _)| room(file).to_owned())
        .collect();
    for (name, allowed) in ROOMS {
        for name in std::iter::once(name).chain(*allowed) {
            assert!(
                standing.contains(*name),
                "the table names {name}, and src/ has no such room: take it out"
            );
        }
    }
}

#[test]
fn a_library_is_named_only_in_the_room_that_hides_it() {
    for (file, named) in sources() {
        for (library, places) in CRATES {
            let may = places
                .iter()
                .any(|place| *place == file || *place == room(&file));
            assert!(
                may || !named.crates.contains(*library),
                "src/{file} names {library}, which only {places:?} may: ask that room instead"
            );
        }
    }
}

#[test]
fn the_migrations_know_nothing_of_the_service() {
    for (file, named) in sources_in("migration/src") {
        assert!(
            !named.crates.contains("rekey"),
            "migration/src/{file} names rekey: a migration is frozen, what it needs stands in it"
        );
    }
}

#[test]
fn the_store_never_sees_a_value() {
    for (file, named) in sources() {
        let seen = named.words.contains("SecretValue");
        assert!(
            !(seen && room(&file) == "store"),
            "src/{file} names SecretValue: only sealed values go below crypto"
        );
    }
}

#[test]
fn no_signature_holds_a_result_inside_a_result() {
    let mut taken_apart = Vec::new();
    for (file, text) in texts_in("src") {
        for (line, number) in text.lines().zip(1..) {
            assert!(
                !line.contains("Result<Result"),
                "src/{file}:{number} has a result inside a result: one error enum says refused or failed"
            );
            let nested = ["Ok(Ok(", "Ok(Err(", "Err(Ok("];
            if nested.iter().any(|nested| line.contains(nested)) {
                taken_apart.push(format!("src/{file}:{number}"));
            }
        }
    }
    assert!(
        taken_apart.len() <= NESTED,
        "too many places take a result inside a result apart: {taken_apart:#?}"
    );
}

#[test]
fn an_error_is_logged_with_all_its_causes() {
    for (file, text) in texts_in("src") {
        for (line, number) in text.lines().zip(1..) {
            let field = line.split("error = ").nth(1);
            let whole = field.is_none_or(|value| {
                line.contains("let error = ") || value.starts_with("%ErrorChain(")
            });
            let short = [
                "%error",
                "?error",
                "&dyn std::error::Error",
                "as &dyn Error",
            ];
            assert!(
                whole && !short.iter().any(|short| line.contains(short)),
                "src/{file}:{number}: log `error = %ErrorChain(&error)`: JSON holds the outermost text alone else"
            );
        }
    }
}

#[test]
fn no_two_types_that_others_see_have_the_same_name() {
    let mut first_places = BTreeMap::new();
    for (file, text) in texts_in("src") {
        // Each entity of SeaORM's is a module with types of the same names.
        if file.contains("entity/") {
            continue;
        }
        let mut types = VisibleTypes::default();
        types.visit_file(&parse(&file, &text));
        for name in types.0 {
            if let Some(first) = first_places.insert(name.clone(), file.clone()) {
                panic!(
                    "src/{first} and src/{file} both show a type {name}: one name for one thing"
                );
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_one_room_needs() {
    for (file, text) in texts_in("src") {
        let lines = text.lines().count();
        assert!(
            lines <= LINES,
            "src/{file} has {lines} lines: at most {LINES} stay readable, so split it"
        );
    }
}

#[test]
fn a_name_is_seen_in_imports_paths_and_macros_and_not_in_strings() {
    let text = r#"
        use crate::{one::Thing, two::{self, Other as Renamed}};
        use super::super::three;
        use super::sibling;
        fn f(x: &crate::four::Type) -> Result<(), lapin::Error> {
            println!("{} crate::never sqlx::never", crate::five::SIX);
            super::sibling::call()
        }
        mod tests {
            use super::super::super::six;
        }
    "#;
    let named = named("room/file.rs", text);
    let rooms: Vec<_> = named.rooms.iter().map(String::as_str).collect();
    assert_eq!(rooms, ["five", "four", "one", "six", "three", "two"]);
    assert!(named.crates.contains("lapin") && !named.crates.contains("sqlx"));
}

/// The types of a file that other files can name.
#[derive(Default)]
struct VisibleTypes(Vec<String>);

impl VisibleTypes {
    fn note(&mut self, visibility: &Visibility, name: &syn::Ident) {
        if !matches!(visibility, Visibility::Inherited) {
            self.0.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for VisibleTypes {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.note(&item.vis, &item.ident);
    }
}

/// What a file names.
#[derive(Default)]
struct Named {
    /// Rooms, by `crate::room` or `super::room`.
    rooms: BTreeSet<String>,
    /// First segments of paths that begin elsewhere.
    crates: BTreeSet<String>,
    /// Every segment of every path.
    words: BTreeSet<String>,
    /// How many modules the present one is below the crate.
    depth: usize,
}

impl Named {
    fn path(&mut self, segments: &[String]) {
        self.words.extend(segments.iter().cloned());
        let up = segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let (to_crate, rest) = match segments.first().map(String::as_str) {
            Some("crate") => (true, &segments[1..]),
            Some("super") => (up == self.depth, &segments[up..]),
            Some("self") | None => return,
            Some(first) => {
                self.crates.insert(first.to_owned());
                return;
            }
        };
        if let Some(room) = rest.first().filter(|_| to_crate) {
            self.rooms.insert(room.clone());
        }
    }

    fn use_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.use_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.path(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.path(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.path(&with("*".to_owned())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(before, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    /// The insides of a macro are tokens: each `a :: b :: c` in them is taken as a path.
    fn visit_macro(&mut self, called: &'ast Macro) {
        let text = called.tokens.to_string().replace("\\\"", "");
        let outside_strings: String = text.split('"').step_by(2).collect();
        let text = outside_strings.replace(" :: ", "::");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            let segments: Vec<_> = word.split("::").map(str::to_owned).collect();
            if segments.len() > 1 {
                self.path(&segments);
            }
        }
        visit::visit_macro(self, called);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, item);
        self.depth -= 1;
    }
}

fn sources() -> Vec<(String, Named)> {
    sources_in("src")
}

/// Every file below a folder, as a path relative to it, and what it names.
fn sources_in(folder: &str) -> Vec<(String, Named)> {
    let texts = texts_in(folder).into_iter();
    texts
        .map(|(file, text)| {
            let named = named(&file, &text);
            (file, named)
        })
        .collect()
}

/// Every file below a folder, as a path relative to it, and its text.
fn texts_in(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 5, "{} is not the tree", root.display());
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            (relative.to_owned(), text)
        })
        .collect()
}

fn parse(file: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn named(file: &str, text: &str) -> Named {
    let mut named = Named {
        depth: depth(file),
        ..Named::default()
    };
    named.visit_file(&parse(file, text));
    named
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// `http/error.rs` is in `http`, `app.rs` is `app`.
fn room(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or_default()
}

/// `app.rs` and `http/mod.rs` are one module below the crate, `http/error.rs` is two.
fn depth(file: &str) -> usize {
    let own = usize::from(!file.ends_with("mod.rs"));
    file.matches('/').count() + own
}
