//! The house as `src/lib.rs` draws it: rooms, arrows that go inwards only, and no two files that import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// A file of `src/` as its place among the modules: `lb::pick::wrr`.
type Module = Vec<String>;

/// The rooms, from the inside out: a file may import those of its own room and of rooms before it.
const ROOMS: [&[&str]; 3] = [&["lb"], &["server"], &["commands"]];

/// Those of the core likewise. Its ground is all that stands beside the others.
const ROOMS_OF_THE_CORE: [&str; 6] = ["roster", "account", "field", "pick", "pool", "codec"];

/// Every file with the files that it imports.
fn arrows() -> BTreeMap<Module, BTreeSet<Module>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    collect(&root, &mut vec![], &mut files);
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let imports = files.iter().map(|(module, path)| {
        let text = fs::read_to_string(path).expect("a file of src/");
        let file = syn::parse_file(&text).expect("Rust");
        let mut paths = Paths {
            module,
            modules: &modules,
            found: BTreeSet::new(),
        };
        paths.visit_file(&file);
        paths.found.remove(module);
        (module.clone(), paths.found)
    });
    imports.collect()
}

fn collect(folder: &Path, module: &mut Module, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of src/") {
        let path = entry.expect("an entry of it").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            module.push(name);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|e| e == "rs") {
            let is_own = ["mod", "lib"].contains(&&*name);
            let own = module.iter().cloned().chain((!is_own).then_some(name));
            files.insert(own.collect(), path.clone());
        }
    }
}

/// Collects the files that a file names, tests aside.
struct Paths<'a> {
    module: &'a Module,
    modules: &'a BTreeSet<Module>,
    found: BTreeSet<Module>,
}

impl Paths<'_> {
    /// The file that the path leads to, if it is one of ours.
    fn name(&mut self, segments: &[String]) {
        let mut at = match segments.first().map(String::as_str) {
            Some("crate") => vec![],
            Some("self") => self.module.clone(),
            Some("super") => self.module[..self.module.len() - 1].to_vec(),
            // Relative to this file, as where a `mod.rs` names its children.
            Some(_) if self.modules.contains(&with(self.module, &segments[0])) => {
                with(self.module, &segments[0])
            }
            _ => return,
        };
        for segment in &segments[1..] {
            match segment.as_str() {
                "super" => _ = at.pop(),
                name if self.modules.contains(&with(&at, name)) => at.push(name.into()),
                _ => break,
            }
        }
        self.found.insert(at);
    }

    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(before, &path.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            UseTree::Name(name) => self.name(&with(before, &name.ident.to_string())),
            UseTree::Rename(name) => self.name(&with(before, &name.ident.to_string())),
            UseTree::Glob(_) => self.name(before),
        }
    }
}

fn with(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |a: &Attribute| {
        a.path().is_ident("cfg")
            && a.parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Use(item) if !is_test(&item.attrs) => self.tree(&item.tree, &[]),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|s| s.ident.to_string());
        let segments: Vec<String> = segments.collect();
        if segments.len() > 1 && ["crate", "super", "self"].contains(&segments[0].as_str()) {
            self.name(&segments);
        }
        visit::visit_path(self, path);
    }
}

fn shown(module: &Module) -> String {
    match module.is_empty() {
        true => "lib".into(),
        false => module.join("::"),
    }
}

/// How far out that file is.
fn floor(module: &Module) -> usize {
    let Some(room) = module.first() else {
        return usize::MAX;
    };
    let floor = ROOMS
        .iter()
        .position(|rooms| rooms.contains(&room.as_str()));
    let floor = floor.unwrap_or_else(|| panic!("{room} is no room of src/lib.rs"));
    let inner = module.get(1).filter(|_| room == "lb");
    let inner = inner.and_then(|name| ROOMS_OF_THE_CORE.iter().position(|r| r == name));
    // The front door of a room is the farthest out in it.
    let inner = if module.len() == 1 {
        99
    } else {
        inner.map_or(0, |inner| inner + 1)
    };
    100 * floor + inner
}

#[test]
fn no_room_knows_of_those_farther_out() {
    let arrows = arrows();
    assert!(arrows.len() > 50, "the files were not found");
    for (from, to) in &arrows {
        for to in to {
            let (from, to) = (shown(from), (shown(to), floor(from), floor(to)));
            assert!(
                to.1 >= to.2,
                "{from} imports {}, which is farther out",
                to.0
            );
        }
    }
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let mut left = arrows();
    // Takes away, again and again, all that imports nothing that is left.
    loop {
        let free = |to: &BTreeSet<Module>| to.iter().all(|to| !left.contains_key(to));
        let done: Vec<Module> = (left.iter().filter(|(_, to)| free(to)))
            .map(|(from, _)| from.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        done.iter().for_each(|from| _ = left.remove(from));
    }
    let left: Vec<_> = left
        .iter()
        .map(|(from, to)| (shown(from), to.iter().map(shown).collect::<Vec<_>>()))
        .collect();
    assert!(left.is_empty(), "in circles, or behind one: {left:#?}");
}
