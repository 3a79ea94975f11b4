//! The house: which room imports which, by the sources themselves. Every arrow goes down, and no two
//! files need each other, so each can be read without the one that uses it. A name counts as used
//! where it is written, whichever `mod.rs` hands it on; tests and the insides of macros are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The rooms from the foundation up: each imports from rooms below it alone.
const STOREYS: [&[&str]; 8] = [
    &["words", "refusal", "secret"],
    &["model"],
    &["judge", "system"],
    &["repro"],
    &["render"],
    &["cli", "exit"],
    &["commands"],
    &["main"],
];

/// A module's path: `["judge", "verdict"]`.
type Module = Vec<String>;

/// One source file.
#[derive(Default)]
struct File {
    /// Paths that it names, from the crate's root on.
    names: BTreeSet<Module>,
    /// What it hands on: the name here, and the path there.
    hands_on: BTreeMap<String, Module>,
}

/// Collects the paths of one file, tests left out.
struct Reader<'a> {
    module: &'a [String],
    /// The modules that it declares.
    children: BTreeSet<String>,
    file: File,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}

impl Reader<'_> {
    /// The path from the root on; `None` where it leads out of the crate, or is a name of the file's
    /// own.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let mut here = self.module.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" | "twcheck" => {
                here.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
            }
            child if self.children.contains(child) => {}
            _ => return None,
        }
        here.extend(rest.iter().cloned());
        Some(here)
    }

    fn tree(&mut self, path: &mut Module, tree: &UseTree, is_handed_on: bool) {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.tree(path, &step.tree, is_handed_on);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(path, tree, is_handed_on);
                }
            }
            UseTree::Name(name) => self.leaf(path, &name.ident, &name.ident, is_handed_on),
            UseTree::Rename(name) => self.leaf(path, &name.ident, &name.rename, is_handed_on),
            UseTree::Glob(_) => {
                if let Some(module) = self.absolute(path) {
                    self.file.names.insert(module);
                }
            }
        }
    }

    fn leaf(&mut self, path: &[String], name: &syn::Ident, here: &syn::Ident, is_handed_on: bool) {
        let mut path = path.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        match self.absolute(&path) {
            Some(target) if is_handed_on => {
                self.file.hands_on.insert(here.to_string(), target);
            }
            found => self.file.names.extend(found),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_of_tests = match item {
            Item::Mod(ItemMod { attrs, .. }) | Item::Use(ItemUse { attrs, .. }) => is_test(attrs),
            _ => false,
        };
        if !is_of_tests {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_handed_on = !matches!(item.vis, Visibility::Inherited);
        self.tree(&mut Vec::new(), &item.tree, is_handed_on);
    }

    /// `pub(super)` uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        let names: Vec<_> = segments.map(|segment| segment.ident.to_string()).collect();
        self.file.names.extend(self.absolute(&names));
        visit::visit_path(self, path);
    }
}

/// All sources below `folder`, by their modules.
fn read(folder: &Path, module: &Module, files: &mut BTreeMap<Module, File>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut here = module.clone();
        if !["mod", "lib"].contains(&name) {
            here.push(name.to_owned());
        }
        if path.is_dir() {
            read(&path, &here, files);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let syntax = syn::parse_file(&text).unwrap();
            let child = |item: &Item| match item {
                Item::Mod(child) if child.content.is_none() => Some(child.ident.to_string()),
                _ => None,
            };
            let mut reader = Reader {
                module: &here,
                children: syntax.items.iter().filter_map(child).collect(),
                file: File::default(),
            };
            reader.visit_file(&syntax);
            let file = reader.file;
            files.insert(here, file);
        }
    }
}

/// The file in which what `path` names is written: names that a file only hands on are followed.
fn home(files: &BTreeMap<Module, File>, path: &[String]) -> Module {
    const HOPS: usize = 8;
    let mut path = path.to_vec();
    for _ in 0..HOPS {
        let length = (0..=path.len())
            .rev()
            .find(|&length| files.contains_key(&path[..length]))
            .unwrap();
        let (module, rest) = path.split_at(length);
        let handed_on = rest
            .first()
            .and_then(|name| files[module].hands_on.get(name));
        match handed_on {
            Some(target) => path = [target.as_slice(), &rest[1..]].concat(),
            None => return module.to_vec(),
        }
    }
    panic!("{path:?} is handed on in a circle");
}

/// Which file uses what is written in which.
fn arrows() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&root, &Vec::new(), &mut files);
    let arrow = |(module, file): (&Module, &File)| {
        let names = file.names.iter();
        let homes = names.map(|name| home(&files, name));
        let others = homes.filter(|home| home != module && !home.is_empty());
        (module.clone(), others.collect())
    };
    // The root itself only lists the rooms.
    let rooms = files.iter().filter(|(module, _)| !module.is_empty());
    rooms.map(arrow).collect()
}

/// The modules of a circle through `start`, if there is one: all that it reaches and that reach it.
fn circle(arrows: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> BTreeSet<Module> {
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.clone()];
        while let Some(module) = open.pop() {
            let next = arrows.get(&module).into_iter().flatten();
            open.extend(next.filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    let mut reached = reach(start);
    reached.retain(|module| reach(module).contains(start));
    reached
}

/// The room that a module is in.
fn room(module: &Module) -> &str {
    &module[0]
}

#[test]
fn every_room_imports_from_the_rooms_below_it_alone() {
    let arrows = arrows();
    let mut table = BTreeMap::<(&str, &str), usize>::new();
    for (from, to) in &arrows {
        for to in to.iter().filter(|to| room(to) != room(from)) {
            *table.entry((room(from), room(to))).or_default() += 1;
        }
    }
    for ((from, to), files) in &table {
        println!("{from:<9} -> {to:<8} {files:>3}");
    }
    // What reads nothing finds nothing.
    assert!(table.contains_key(&("commands", "judge")));
    let storey = |room: &str| {
        let found = STOREYS.iter().position(|rooms| rooms.contains(&room));
        found.unwrap_or_else(|| panic!("{room} has no storey"))
    };
    let upward = |(from, to): &&(&str, &str)| storey(to) >= storey(from);
    let upward: Vec<_> = table.keys().filter(upward).collect();
    assert!(upward.is_empty(), "{upward:?}");
}

#[test]
fn no_two_files_need_each_other() {
    let arrows = arrows();
    let circles: BTreeSet<_> = arrows
        .keys()
        .map(|module| circle(&arrows, module))
        .filter(|circle| !circle.is_empty())
        .collect();
    let between = |circle: &BTreeSet<Module>| -> Vec<String> {
        let inside = |from: &Module| arrows[from].intersection(circle).cloned().collect();
        let name = |module: &Module| module.join("::");
        let list = |modules: Vec<Module>| modules.iter().map(name).collect::<Vec<_>>().join(", ");
        let line = |from: &Module| format!("{} -> {}", name(from), list(inside(from)));
        circle.iter().map(line).collect()
    };
    let told: Vec<_> = circles.iter().map(between).collect();
    assert!(told.is_empty(), "{told:#?}");
}
