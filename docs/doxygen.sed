# Comments that stand alone belong to what follows, those behind something to that.
s|^\( *\)// |\1/// |
s|^\( *\)//$|\1///|
s|\([;,{}]\) *// |\1 ///< |
# What Doxygen takes for commands, or for tags.
/\/\/\//s/[@\\]/\\&/g
/\/\/\//s/<\([a-zA-Z]\)/\\<\1/g
