# Finds LibTorch, in a LibTorch archive or in a Python installation of torch.
#
#   LibTorch_FOUND, LibTorch_VERSION, LibTorch_LIBRARY_DIR
#   LibTorch::LibTorch   headers, libtorch, libtorch_cpu and libc10
#   LibTorch::Python     libtorch_python too (component Python)
#
# Places, in this order: LibTorch_ROOT (the folder with include/ and lib/), Torch_DIR, CMAKE_PREFIX_PATH (a LibTorch
# folder or torch.utils.cmake_prefix_path), LibTorch_HINTS, and the torch of Python_EXECUTABLE or python3.
#
# Why not find_package(Torch): its config wants all that torch was built with. With a CUDA build, which is what PyPI has,
# it fails where there is no CUDA toolkit; qatx needs none.

string(REPLACE ":" ";" _libtorch_env_prefixes "$ENV{CMAKE_PREFIX_PATH}")
set(_libtorch_prefixes ${LibTorch_ROOT} $ENV{LibTorch_ROOT} ${Torch_DIR} ${CMAKE_PREFIX_PATH} ${_libtorch_env_prefixes}
                       ${LibTorch_HINTS})
set(_libtorch_search NAMES TorchConfigVersion.cmake PATH_SUFFIXES share/cmake/Torch Torch NO_DEFAULT_PATH NO_CACHE)
unset(_libtorch_version_file)
find_file(_libtorch_version_file ${_libtorch_search} PATHS ${_libtorch_prefixes})
if(NOT _libtorch_version_file)
  if(NOT Python_EXECUTABLE)
    find_program(Python_EXECUTABLE python3 NO_CACHE)
  endif()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "from importlib.util import find_spec; print(find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _libtorch_prefixes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_file(_libtorch_version_file ${_libtorch_search} PATHS ${_libtorch_prefixes})
endif()

unset(LibTorch_VERSION)
unset(LibTorch_LIBRARY_DIR)
if(_libtorch_version_file)
  file(STRINGS "${_libtorch_version_file}" LibTorch_VERSION REGEX "set\\(PACKAGE_VERSION " LIMIT_COUNT 1)
  string(REGEX MATCH "[0-9]+(\\.[0-9]+)+" LibTorch_VERSION "${LibTorch_VERSION}")
  get_filename_component(_libtorch_root "${_libtorch_version_file}/../../../.." ABSOLUTE)
  set(LibTorch_LIBRARY_DIR "${_libtorch_root}/lib")
  foreach(_libtorch_name torch torch_cpu c10 torch_python)
    find_library(LibTorch_${_libtorch_name} ${_libtorch_name} PATHS "${LibTorch_LIBRARY_DIR}" NO_DEFAULT_PATH NO_CACHE)
  endforeach()
  set(LibTorch_Python_FOUND ${LibTorch_torch_python})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_LIBRARY_DIR LibTorch_torch LibTorch_torch_cpu LibTorch_c10
  VERSION_VAR LibTorch_VERSION
  HANDLE_COMPONENTS
  REASON_FAILURE_MESSAGE "pip install torch, or set LibTorch_ROOT to the folder of an unpacked LibTorch.")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED GLOBAL)
  foreach(_libtorch_name torch torch_cpu c10)
    add_library(LibTorch::${_libtorch_name} SHARED IMPORTED GLOBAL)
    set_target_properties(LibTorch::${_libtorch_name} PROPERTIES IMPORTED_LOCATION "${LibTorch_${_libtorch_name}}")
    target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::${_libtorch_name})
  endforeach()
  target_include_directories(LibTorch::LibTorch INTERFACE "${_libtorch_root}/include"
                                                          "${_libtorch_root}/include/torch/csrc/api/include")
  target_compile_features(LibTorch::LibTorch INTERFACE cxx_std_20)
  if(LibTorch_torch_python)
    add_library(LibTorch::Python SHARED IMPORTED GLOBAL)
    set_target_properties(LibTorch::Python PROPERTIES IMPORTED_LOCATION "${LibTorch_torch_python}")
    target_link_libraries(LibTorch::Python INTERFACE LibTorch::LibTorch)
  endif()
endif()
