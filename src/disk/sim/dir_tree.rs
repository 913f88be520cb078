//! The directory tree: the names that a process sees, and the names that survive a power failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
};

use super::{crash::Crash, file_content::FileContent, rng::SimRng};

pub type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Debug, Clone)]
pub struct DirTree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Changes that no `sync_dir` has covered yet, oldest first.
    unsynced: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum Node {
    File(FileContent),
    Dir(Dir),
}

#[derive(Debug, Clone, Default)]
struct Dir {
    seen: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// An atomic change: of one name for a creation or removal, of two for a rename.
#[derive(Debug, Clone)]
struct NameChange(Vec<(DirEntry, Option<NodeId>)>);

/// A name in a directory.
type DirEntry = (NodeId, String);

impl DirTree {
    pub fn new() -> DirTree {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        DirTree { nodes, next: ROOT + 1, unsynced: Vec::new() }
    }

    pub fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let name = name.to_string_lossy();
                let found = self.dir(node)?.seen.get(name.as_ref());
                node = *found.ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    pub fn file(&mut self, id: NodeId) -> io::Result<&mut FileContent> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.dir(self.find(path)?)?.seen.keys().cloned().collect())
    }

    /// Where a file is now; `None` once it has no name.
    pub fn path_of(&self, file: NodeId) -> Option<PathBuf> {
        self.path_below(ROOT, file)
    }

    pub fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let entry = self.entry(path)?;
        if self.at(&entry)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.insert(Node::File(FileContent::default()));
        self.change(vec![(entry, Some(id))])?;
        Ok(id)
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut here = PathBuf::new();
        for component in path.components() {
            here.push(component);
            if !matches!(component, Component::Normal(_)) {
                continue;
            }
            let entry = self.entry(&here)?;
            match self.at(&entry)? {
                Some(id) => {
                    self.dir(id)?;
                }
                None => {
                    let parent = entry.0;
                    let id = self.insert(Node::Dir(Dir::default()));
                    self.change(vec![(entry, Some(id))])?;
                    self.sync_dir(parent);
                }
            }
        }
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.entry(from)?, self.entry(to)?);
        let id = self.at(&from)?.ok_or(io::ErrorKind::NotFound)?;
        if from == to {
            return Ok(());
        }
        if let Some(replaced) = self.at(&to)?
            && (self.dir(replaced).is_ok() || self.dir(id).is_ok())
        {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(vec![(from, None), (to, Some(id))])
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let entry = self.entry(path)?;
        let id = self.at(&entry)?.ok_or(io::ErrorKind::NotFound)?;
        self.file(id)?;
        self.change(vec![(entry, None)])
    }

    /// Removes the leaves first, one by one, as a process does.
    pub fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        for name in self.list(path)? {
            let child = path.join(name);
            let id = self.find(&child)?;
            if self.dir(id).is_ok() {
                self.remove_dir_all(&child)?;
            } else {
                self.remove_file(&child)?;
            }
        }
        let entry = self.entry(path)?;
        self.change(vec![(entry, None)])
    }

    /// Makes the changes of this directory durable, including the other name of a rename.
    pub fn sync_dir(&mut self, dir: NodeId) {
        let mut wanted: BTreeSet<DirEntry> = BTreeSet::new();
        let mut kept = Vec::new();
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            let mut entries = change.0.iter().map(|(entry, _)| entry);
            if entries.any(|entry| entry.0 == dir || wanted.contains(entry)) {
                wanted.extend(change.0.iter().map(|(entry, _)| entry.clone()));
                durable.push(change);
            } else {
                kept.push(change);
            }
        }
        kept.reverse();
        self.unsynced = kept;
        for change in durable.into_iter().rev() {
            self.make_durable(change);
        }
    }

    /// Each unsynced change survives independently, but a change is lost if an earlier change of the
    /// same name is lost. So changes of one name keep their order, and different names have none.
    pub fn crash(&mut self, how: Crash, rng: &mut SimRng) {
        let mut lost: BTreeSet<DirEntry> = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let survives = how.survives(rng);
            if survives && !change.0.iter().any(|(entry, _)| lost.contains(entry)) {
                self.make_durable(change);
            } else {
                lost.extend(change.0.into_iter().map(|(entry, _)| entry));
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.seen = dir.durable.clone(),
                Node::File(content) => content.crash(how, rng),
            }
        }
        let mut reachable = BTreeSet::new();
        self.mark(ROOT, &mut reachable);
        self.nodes.retain(|id, _| reachable.contains(id));
    }

    /// The bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        let mut reachable = BTreeSet::new();
        self.mark(ROOT, &mut reachable);
        let len = |id| match self.nodes.get(id) {
            Some(Node::File(content)) => content.len() as u64,
            _ => 0,
        };
        reachable.iter().map(len).sum()
    }

    fn insert(&mut self, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn entry(&self, path: &Path) -> io::Result<DirEntry> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    fn at(&self, entry: &DirEntry) -> io::Result<Option<NodeId>> {
        Ok(self.dir(entry.0)?.seen.get(&entry.1).copied())
    }

    fn change(&mut self, change: Vec<(DirEntry, Option<NodeId>)>) -> io::Result<()> {
        for ((dir, name), node) in &change {
            let Some(Node::Dir(dir)) = self.nodes.get_mut(dir) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            match node {
                Some(id) => dir.seen.insert(name.clone(), *id),
                None => dir.seen.remove(name),
            };
        }
        self.unsynced.push(NameChange(change));
        Ok(())
    }

    fn make_durable(&mut self, change: NameChange) {
        for ((dir, name), node) in change.0 {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) {
                match node {
                    Some(id) => dir.durable.insert(name, id),
                    None => dir.durable.remove(&name),
                };
            }
        }
    }

    fn mark(&self, id: NodeId, reachable: &mut BTreeSet<NodeId>) {
        reachable.insert(id);
        if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
            for child in dir.seen.values() {
                self.mark(*child, reachable);
            }
        }
    }

    fn path_below(&self, dir: NodeId, wanted: NodeId) -> Option<PathBuf> {
        let Some(Node::Dir(entries)) = self.nodes.get(&dir) else { return None };
        entries.seen.iter().find_map(|(name, id)| {
            if *id == wanted {
                return Some(PathBuf::from(name));
            }
            Some(Path::new(name).join(self.path_below(*id, wanted)?))
        })
    }
}
