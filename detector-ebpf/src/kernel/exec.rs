//! `struct linux_binprm`: a program that is being executed.

use super::{
    offsets::*,
    pointer::{Binprm, File},
};

impl Binprm {
    /// The file that is executed; once it is in place, that of a script's interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        self.follow(&OFF_BINPRM_FILE)
    }

    /// Whether the file is a script: its first bytes, which are in `buf`, name an interpreter.
    #[inline(always)]
    pub fn is_script(self) -> bool {
        self.read::<[u8; 2]>(&OFF_BINPRM_BUF) == *b"#!"
    }
}
