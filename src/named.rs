//! Enums whose values have a name each, so that they are listed, named and found
//! by name in one way.

/// Defines enums with `ALL`, `name` and `from_name`, from values and their names.
macro_rules! named {
    ($(
        $(#[$about:meta])*
        $vis:vis enum $enum:ident {
            $($(#[$doc:meta])* $value:ident $(= $number:literal)? => $name:literal,)+
        }
    )+) => {$(
        $(#[$about])*
        $vis enum $enum {
            $($(#[$doc])* $value $(= $number)?,)+
        }

        #[allow(dead_code, reason = "not every enum is listed and searched")]
        impl $enum {
            /// Every value, in the order in which they are shown.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// The name, as users and reports spell it.
            #[must_use]
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// The value of this name, if any has it.
            #[must_use]
            $vis fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }
    )+};
}
