//! The directory tree: the names a process sees, and those that survive a power failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
};

use super::{Crash, content::Content, rng::SimRng};

pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Debug, Clone)]
pub(super) struct Names {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Changes of names that no `sync_dir` covered yet, oldest first.
    unsynced: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Dir(Dir),
}

#[derive(Debug, Clone, Default)]
struct Dir {
    seen: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// What happens at once or not at all: one name for a creation or removal, two for a rename.
#[derive(Debug, Clone)]
struct NameChange(Vec<(Place, Option<NodeId>)>);

/// A name in a directory.
type Place = (NodeId, String);

impl Names {
    pub(super) fn new() -> Names {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Names { nodes, next: ROOT + 1, unsynced: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
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

    pub(super) fn file(&mut self, id: NodeId) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.dir(self.find(path)?)?.seen.keys().cloned().collect())
    }

    /// Where a file is now; `None` once it has no name.
    pub(super) fn path_of(&self, file: NodeId) -> Option<PathBuf> {
        self.path_below(ROOT, file)
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let place = self.place(path)?;
        if self.at(&place)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.insert(Node::File(Content::default()));
        self.change(vec![(place, Some(id))])?;
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut here = PathBuf::new();
        for component in path.components() {
            here.push(component);
            if !matches!(component, Component::Normal(_)) {
                continue;
            }
            let place = self.place(&here)?;
            match self.at(&place)? {
                Some(id) => {
                    self.dir(id)?;
                }
                None => {
                    let parent = place.0;
                    let id = self.insert(Node::Dir(Dir::default()));
                    self.change(vec![(place, Some(id))])?;
                    self.sync_dir(parent);
                }
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
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

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        let id = self.at(&place)?.ok_or(io::ErrorKind::NotFound)?;
        self.file(id)?;
        self.change(vec![(place, None)])
    }

    /// Removes the leaves first, one by one, as a process would.
    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        for name in self.list(path)? {
            let child = path.join(name);
            let id = self.find(&child)?;
            if self.dir(id).is_ok() {
                self.remove_dir_all(&child)?;
            } else {
                self.remove_file(&child)?;
            }
        }
        let place = self.place(path)?;
        self.change(vec![(place, None)])
    }

    /// Makes the changes of this directory durable, and with a rename its other name too.
    pub(super) fn sync_dir(&mut self, dir: NodeId) {
        let mut wanted: BTreeSet<Place> = BTreeSet::new();
        let mut kept = Vec::new();
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            let mut places = change.0.iter().map(|(place, _)| place);
            if places.any(|place| place.0 == dir || wanted.contains(place)) {
                wanted.extend(change.0.iter().map(|(place, _)| place.clone()));
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

    /// Each unsynced change survives or not, on its own, but one that touches a name whose earlier
    /// change was lost is lost too. So names keep their order, and different names have none.
    pub(super) fn crash(&mut self, how: Crash, rng: &mut SimRng) {
        let mut lost: BTreeSet<Place> = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let survives = match how {
                Crash::KeepAll => true,
                Crash::LoseAll => false,
                Crash::Arbitrary => rng.coin(),
            };
            if survives && !change.0.iter().any(|(place, _)| lost.contains(place)) {
                self.make_durable(change);
            } else {
                lost.extend(change.0.into_iter().map(|(place, _)| place));
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
    pub(super) fn used_bytes(&self) -> u64 {
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

    fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    fn at(&self, place: &Place) -> io::Result<Option<NodeId>> {
        Ok(self.dir(place.0)?.seen.get(&place.1).copied())
    }

    fn change(&mut self, change: Vec<(Place, Option<NodeId>)>) -> io::Result<()> {
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
