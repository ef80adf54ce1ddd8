//! `struct vm_area_struct`: mapped memory, and the file that is mapped.

use detector_common::offsets::ABSENT;

use super::{
    offsets::*,
    path::Place,
    pointer::{File, Vma},
};

/// `VM_EXEC` and `VM_SHARED` (include/linux/mm.h, 5.10 to 7.3).
const VM_EXEC: u64 = 4;
const VM_SHARED: u64 = 8;

impl Vma {
    /// Returns the mapped file, or null for anonymous memory. For a file of an overlay, this is the file of the layer.
    #[inline(always)]
    pub fn file(self) -> File {
        self.follow(&OFF_VMA_FILE)
    }

    /// Returns whether the memory is executable.
    #[inline(always)]
    pub fn is_executable(self) -> bool {
        self.flags() & VM_EXEC != 0
    }

    /// Returns whether writes to the memory change the file.
    #[inline(always)]
    pub fn is_shared(self) -> bool {
        self.flags() & VM_SHARED != 0
    }

    #[inline(always)]
    fn flags(self) -> u64 {
        self.read(&OFF_VMA_FLAGS)
    }
}

impl File {
    /// Returns the place in an overlay if this is the file of a layer, which the overlay has opened for a process. Up
    /// to 6.6, `f_path` has this place. From 6.7 on, `f_path` is the place in the layer, and the file is the first
    /// member of a `struct backing_file`, whose `user_path` is this place (`backing_file_open`, fs/file_table.c). No
    /// flag with the same value on all kernels tells such a file from others. In other files, something else is in
    /// this memory, which is no dentry of an overlay.
    #[inline(always)]
    pub fn place_on_overlay(self) -> Option<Place> {
        let place = if OFF_BACKING_DENTRY.load() == ABSENT {
            self.place()
        } else {
            Place { dentry: self.follow(&OFF_BACKING_DENTRY), mount: self.follow(&OFF_BACKING_MNT) }
        };
        place.dentry.superblock().is_overlay().then_some(place)
    }
}
