//! A removed member's data is archived.

use std::{path::Path, sync::Arc};

use super::super::{DataDir, Identity, Stage};
use crate::{
    disk::{Disk, Open, sim::SimDisk},
    types::{ClusterId, MemberId, Ordinal},
};

#[test]
fn the_archive_holds_one_incarnation_and_can_be_dropped() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let dir = DataDir::open(disk.clone(), Path::new("/data")).unwrap();
    let archive = |member: u64| {
        let identity = Identity {
            cluster: ClusterId(1),
            member: MemberId(member),
            ordinal: Ordinal(0),
            home: String::new(),
            boot: 1,
            stage: Stage::Dead,
            founders: Vec::new(),
            recovered_from: None,
        };
        dir.store_identity(&identity).unwrap();
        disk.create_dir_all(Path::new("/data/wal")).unwrap();
        disk.open(Path::new("/data/wal/1.wal"), Open::CreateNew).unwrap();
        dir.archive().unwrap();
        assert_eq!(dir.identity().unwrap(), None, "pristine again");
    };
    archive(7);
    archive(8);
    let archived = Identity::load(&*disk, Path::new("/data/archive/identity")).unwrap().unwrap();
    assert_eq!(archived.member, MemberId(8));
    assert!(disk.exists(Path::new("/data/archive/wal/1.wal")).unwrap());
    assert!(dir.drop_archive().unwrap());
    assert!(!disk.exists(Path::new("/data/archive")).unwrap());
    assert!(!dir.drop_archive().unwrap());
}
