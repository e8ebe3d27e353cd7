//! Enums whose variants have labels.

/// Defines an enum from a table with one row per variant: `Variant => "label"` or `Variant = code => "label"`. `ALL`
/// lists the variants in the order of the rows. The identifier after the enum's name is the name of the function that
/// returns the label.
macro_rules! labelled {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident, $label:ident {
            $($(#[$variant_attribute:meta])* $variant:ident $(= $code:literal)? => $text:literal,)+
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant $(= $code)?,)+
        }

        impl $name {
            /// All variants, in the order of their definition.
            $visibility const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Returns the value of the label.
            $visibility const fn $label(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

pub(crate) use labelled;
