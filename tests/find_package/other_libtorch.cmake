# Configures the project beside this file with an installed qatx, and with LibTorch of another minor version and of another
# patch release: the first is an error that names both versions and says what to do, the second is taken.
#
#   cmake -DBUILD=<folder> -DLIBTORCH=<folder> -DBUILT_WITH=<version of LIBTORCH> -P other_libtorch.cmake
cmake_minimum_required(VERSION 3.22)

set(work "${BUILD}/consumers/other_libtorch")
file(REMOVE_RECURSE "${work}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/prefix" --component library
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)

# LIBTORCH under another version: what FindLibTorch reads is a file of its own, all else is linked.
function(configure version)
  set(libtorch "${work}/libtorch-${version}")
  file(WRITE "${libtorch}/share/cmake/Torch/TorchConfigVersion.cmake" "set(PACKAGE_VERSION \"${version}\")\n")
  foreach(folder include lib)
    file(CREATE_LINK "${LIBTORCH}/${folder}" "${libtorch}/${folder}" SYMBOLIC)
  endforeach()
  execute_process(COMMAND "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${work}/build-${version}" -G Ninja
                          "-DCMAKE_PREFIX_PATH=${work}/prefix" "-DLibTorch_ROOT=${libtorch}"
                  RESULT_VARIABLE result ERROR_VARIABLE message OUTPUT_QUIET)
  string(REGEX REPLACE "[ \n]+" " " message "${message}") # CMake wraps lines
  set(result "${result}" PARENT_SCOPE)
  set(message "${message}" PARENT_SCOPE)
endfunction()

string(REGEX MATCH "^([0-9]+)[.]([0-9]+)" minor "${BUILT_WITH}")
configure("${minor}.77")
if(NOT result EQUAL 0)
  message(FATAL_ERROR "a patch release of LibTorch is refused: ${message}")
endif()

math(EXPR next "${CMAKE_MATCH_2} + 1")
set(other "${CMAKE_MATCH_1}.${next}.0")
configure("${other}")
if(result EQUAL 0)
  message(FATAL_ERROR "LibTorch ${other} is taken by a qatx that was built with ${BUILT_WITH}")
endif()
foreach(part "built with LibTorch ${BUILT_WITH} and needs LibTorch ${minor}[.][*]"
             "but LibTorch ${other} was found in .*/libtorch-${other}/lib"
             "Put a LibTorch ${minor} first in CMAKE_PREFIX_PATH, or build qatx again with LibTorch ${other}")
  if(NOT message MATCHES "${part}")
    message(FATAL_ERROR "'${part}' is not in the message of find_package: ${message}")
  endif()
endforeach()
file(REMOVE_RECURSE "${work}")
