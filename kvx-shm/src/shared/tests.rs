use std::sync::atomic::Ordering;

use super::*;

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn shared_memory_is_what_its_owner_writes_and_cannot_be_cut() {
    let (memfd, own) = Words::create(1024).unwrap();
    let theirs = Words::attach(&memfd, 1024, user()).unwrap();
    own.words()[1023].store(5, Ordering::Release);
    assert_eq!(theirs.words()[1023].load(Ordering::Acquire), 5);
    assert!(rustix::fs::ftruncate(&memfd, 0).is_err());
    assert!(rustix::io::write(&memfd, b"x").is_err());
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(rustix::fs::fallocate(&memfd, hole, 0, 4096).is_err());
}

#[test]
fn what_is_not_sealed_shared_memory_of_the_size_is_not_mapped() {
    let (memfd, _own) = Words::create(1024).unwrap();
    assert!(Words::attach(&memfd, 512, user()).is_err());
    let others = Words::attach(&memfd, 1024, user() + 1).unwrap_err();
    assert!(others.to_string().contains("another user's"));
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let open = rustix::fs::memfd_create("kvx-test", flags).unwrap();
    rustix::fs::ftruncate(&open, 8192).unwrap();
    assert!(Words::attach(&open, 1024, user()).unwrap_err().to_string().contains("not sealed"));
    let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    assert!(
        Words::attach(&file, 1024, user()).unwrap_err().to_string().contains("not shared memory")
    );
}
