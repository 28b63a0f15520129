use super::*;

const PAGE: u64 = 4096;

fn map(buffer: &Buffer, prot: ProtFlags) -> rustix::io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping, placed by the kernel, replaces nothing.
    let base = unsafe {
        mmap(std::ptr::null_mut(), buffer.mapping.len, prot, MapFlags::SHARED, buffer.memfd(), 0)
    };
    base.map(|base| NonNull::new(base.cast()).unwrap())
}

#[test]
fn a_new_buffer_is_zeroed_aligned_and_of_the_length_asked_for() {
    let buffer = Buffer::allocate(3 * PAGE + 5).unwrap();
    assert_eq!(buffer.len(), 3 * PAGE + 5);
    assert_eq!(buffer.address() % PAGE, 0);
    assert_eq!(rustix::fs::fstat(buffer.memfd()).unwrap().st_size as u64, buffer.len());
    // SAFETY: nobody else knows the buffer.
    let bytes = unsafe { buffer.as_slice() };
    assert!(bytes.len() as u64 == buffer.len() && bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn every_page_is_allocated_before_it_is_used() {
    let buffer = Buffer::allocate(40 << 20).unwrap();
    let blocks = rustix::fs::fstat(buffer.memfd()).unwrap().st_blocks as u64;
    assert!(blocks * 512 >= buffer.len(), "{blocks} blocks of 512 bytes");
}

#[test]
fn a_sealed_buffer_cannot_be_cut_grown_punched_or_written_through_its_descriptor() {
    let buffer = Buffer::allocate(2 * PAGE).unwrap();
    buffer.fill(0, 2 * PAGE, 7).unwrap();
    let memfd = buffer.memfd();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::ftruncate(memfd, PAGE), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(memfd, 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(memfd, 3 * PAGE), Err(Errno::PERM));
    assert_eq!(fallocate(memfd, punch, 0, PAGE), Err(Errno::PERM));
    assert_eq!(rustix::io::pwrite(memfd, b"x", 0), Err(Errno::PERM));
    assert_eq!(map(&buffer, ProtFlags::READ | ProtFlags::WRITE), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(memfd, SealFlags::WRITE), Err(Errno::PERM));
    let mut bytes = [0; 4];
    buffer.read(PAGE - 2, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4]);
}

#[test]
fn a_peer_maps_the_buffer_to_read_and_cannot_make_the_mapping_writable() {
    let buffer = Buffer::allocate(PAGE).unwrap();
    let view = map(&buffer, ProtFlags::READ).unwrap();
    buffer.write(100, b"seen").unwrap();
    // SAFETY: one page is mapped there, and nobody writes it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(view.as_ptr(), PAGE as usize) };
    assert_eq!(&bytes[100..104], b"seen");
    let prot = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
    // SAFETY: the page mapped above; the call is refused.
    let result = unsafe { rustix::mm::mprotect(view.as_ptr().cast(), PAGE as usize, prot) };
    assert_eq!(result, Err(Errno::ACCESS));
    // SAFETY: mapped above; `bytes` is not used any more.
    unsafe { munmap(view.as_ptr().cast(), PAGE as usize) }.unwrap();
}

#[test]
fn impossible_lengths_are_errors_and_the_process_lives() {
    assert!(matches!(Buffer::allocate(0), Err(Cause::Invalid(Invalid::Empty(_)))));
    for len in [u64::MAX, i64::MAX as u64, 1 << 62, 1 << 50, available().saturating_add(1)] {
        match Buffer::allocate(len) {
            Err(Cause::OutOfMemory { bytes }) => assert_eq!(bytes, len),
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn accesses_beyond_the_end_are_refused_whole() {
    let buffer = Buffer::allocate(10).unwrap();
    for (offset, len) in [(10, 1), (0, 11), (9, 2), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, 0)] {
        let expected = Invalid::OutOfBounds { index: 0, offset, len, region_len: 10 };
        assert_eq!(buffer.fill(offset, len, 1), Err(expected.clone()));
        if len <= 11 {
            let mut bytes = vec![0; len as usize];
            assert_eq!(buffer.write(offset, &bytes), Err(expected.clone()));
            assert_eq!(buffer.read(offset, &mut bytes), Err(expected));
        }
    }
    let mut all = [9; 10];
    buffer.read(0, &mut all).unwrap();
    assert_eq!(all, [0; 10]);
    buffer.write(10, b"").unwrap();
    buffer.write(0, b"0123456789").unwrap();
}

#[test]
fn the_provider_keeps_the_memory_mapped_and_stays_inside_it() {
    let buffer = Buffer::allocate(PAGE).unwrap();
    let provider = buffer.provider();
    buffer.write(8, b"kept").unwrap();
    drop(buffer);
    let span = provider.host(LocalSpan { region: 0, len: 4, offset: 8 }).unwrap();
    assert_eq!((span.address, span.len), (provider.base() + 8, 4));
    // SAFETY: the provider keeps the mapping, and nobody writes it.
    let bytes = unsafe { std::slice::from_raw_parts(span.address as *const u8, 4) };
    assert_eq!(bytes, b"kept");
    assert_eq!((provider.kind(), provider.len()), (MemoryKind::Host, PAGE));
    assert_eq!(provider.host(LocalSpan { region: 0, len: 4, offset: PAGE - 3 }), None);
    assert_eq!(provider.host(LocalSpan { region: 0, len: 4, offset: u64::MAX }), None);
}

#[test]
fn dropping_the_last_owner_unmaps_the_memory() {
    let buffer = Buffer::allocate(PAGE).unwrap();
    let (address, clone) = (buffer.address(), buffer.clone());
    drop(buffer);
    clone.write(0, b"x").unwrap();
    let inode = rustix::fs::fstat(clone.memfd()).unwrap().st_ino.to_string();
    let mapped = |inode: &str| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| line.starts_with(&format!("{address:x}-")) && line.contains(inode))
    };
    assert!(mapped(&inode));
    drop(clone);
    assert!(!mapped(&inode));
}

#[test]
fn threads_that_share_a_buffer_see_whole_words_of_one_another() {
    let buffer = Buffer::allocate(1 << 16).unwrap();
    std::thread::scope(|scope| {
        for value in 1..=3_u8 {
            let buffer = buffer.clone();
            scope.spawn(move || {
                let bytes = vec![value; 1 << 16];
                let mut seen = vec![0; 1 << 16];
                for _ in 0..50 {
                    buffer.write(0, &bytes).unwrap();
                    buffer.read(0, &mut seen).unwrap();
                    for word in seen.chunks(8) {
                        assert!(word.iter().all(|byte| *byte == word[0] && (1..=3).contains(byte)));
                    }
                }
            });
        }
    });
}
