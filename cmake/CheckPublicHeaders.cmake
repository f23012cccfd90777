# Fails when a public header may need others before it. Of HEADERS each has a source file of its own name, which has to
# include it first: so the library's build has compiled it alone. The rest is compiled here (target qatx_headers of BUILD).
#   cmake -DSOURCE=<csrc/qatx> "-DHEADERS=<header;header>" -DBUILD=<folder> -P CheckPublicHeaders.cmake
foreach(header ${HEADERS})
  string(REGEX REPLACE "[.]h$" ".cpp" source "${header}")
  file(STRINGS "${SOURCE}/${source}" first REGEX "^#" LIMIT_COUNT 1)
  if(NOT first STREQUAL "#include \"qatx/${header}\"")
    message(SEND_ERROR "${SOURCE}/${source} must include \"qatx/${header}\" before all else, got ${first}: this is what "
                       "shows that the header compiles alone")
  endif()
endforeach()
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${BUILD}" --target qatx_headers COMMAND_ERROR_IS_FATAL ANY)
