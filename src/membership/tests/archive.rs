//! What a dead member leaves is set aside.

use std::{path::Path, sync::Arc};

use super::super::{DataDir, Identity, Stage};
use crate::{
    disk::{Disk, Open, sim::SimDisk},
    types::{ClusterId, MemberId, Ordinal},
};

#[test]
fn what_was_set_aside_is_one_life_and_goes_when_space_is_short() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let dir = DataDir::open(disk.clone(), Path::new("/data")).unwrap();
    let life = |member: u64| {
        let identity = Identity {
            cluster: ClusterId(1),
            member: MemberId(member),
            ordinal: Ordinal(0),
            home: String::new(),
            boot: 1,
            stage: Stage::Dead,
            founders: Vec::new(),
        };
        dir.store_identity(&identity).unwrap();
        disk.create_dir_all(Path::new("/data/wal")).unwrap();
        disk.open(Path::new("/data/wal/1.wal"), Open::CreateNew).unwrap();
        dir.archive().unwrap();
        assert_eq!(dir.identity().unwrap(), None, "pristine again");
    };
    life(7);
    life(8);
    let kept = Identity::load(&*disk, Path::new("/data/archive/identity")).unwrap().unwrap();
    assert_eq!(kept.member, MemberId(8));
    assert!(disk.exists(Path::new("/data/archive/wal/1.wal")).unwrap());
    assert!(dir.drop_archive().unwrap());
    assert!(!disk.exists(Path::new("/data/archive")).unwrap());
    assert!(!dir.drop_archive().unwrap());
}
