// gloo's exceptions are thrown and caught inside libtorch_cpu; to us they are std::exception.
#pragma once
