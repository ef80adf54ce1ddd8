//! `struct linux_binprm`: a program that is being executed.

use detector_common::record::HEAD_CAPACITY;

use super::{
    offsets::*,
    pointer::{Binprm, File},
};

impl Binprm {
    /// Returns the file that is executed. For a script, this is its interpreter once the exec has succeeded.
    #[inline(always)]
    pub fn file(self) -> File {
        self.follow(&OFF_BINPRM_FILE)
    }

    /// Copies the first bytes of the file.
    #[inline(always)]
    pub fn copy_head(self, to: &mut [u8; HEAD_CAPACITY]) {
        self.copy(&OFF_BINPRM_BUF, to);
    }

    /// Returns whether the file is executed as the interpreter of another one, such as a script. The kernel then
    /// replaces one of two names that are the same before (`bprm_change_interp`, fs/exec.c, 5.10 to 7.3).
    #[inline(always)]
    pub fn is_interpreter(self) -> bool {
        self.read::<u64>(&OFF_BINPRM_FILENAME) != self.read::<u64>(&OFF_BINPRM_INTERP)
    }

    /// Returns whether the file is a script. `buf` has its first bytes, which then name an interpreter.
    #[inline(always)]
    pub fn is_script(self) -> bool {
        self.read::<[u8; 2]>(&OFF_BINPRM_BUF) == *b"#!"
    }
}
