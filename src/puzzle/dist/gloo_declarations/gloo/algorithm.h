// ProcessGroupGloo.hpp includes this name but uses nothing from it. The torch wheel ships no gloo
// headers; the files below this folder declare just what its header mentions.
#pragma once
