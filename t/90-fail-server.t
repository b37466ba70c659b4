#!/usr/bin/perl
# Guards: whichever call fails in a hyper server, A's or B's, it lives, each call through it ends in time with a result or a reason, the next one works, descriptors return.
use strict;
use warnings;
use FailNth;
use HyperMesh;
use HyperTest;
use Test::More;

my $socket = tmp() . '/admin.sock';
my %page = map { $_ => fail_page($_) } qw(hd-1 hd-2);
my $m = mesh(directory => 'json', plain => 1, workers => 1, start => 0, hyper => { map { $_ => "call_timeout = " . 3 * slow_factor() . ";\nreconnect_min = 0.1;\nreconnect_max = 0.2;\n" } qw(hd-1 hd-2 public-proxy-1.ga) });
write_file("$m->{dir}/proxy/002.cfg", qq(admin_socket = "$socket";\n));
$m->start_one($_) for qw(proxy ph);
with_pages($page{$_}, sub { $m->start_one($_) }) for qw(hd-2 hd-1);
wait_until { $m->ping->{result} } 20 or BAIL_OUT("no call works:\n" . $m->{'hd-1'}->log_tail);

# A call of A's application to B: how it ended.
sub call {
	my $r = $m->ping(timeout => 6);
	return 'silent call' if ($r->{curl} // 0) == 28;
	return 'ok' if $r->{result};
	return $r->{error} ? "error $r->{error}{code} " . ($r->{error}{data}{reason} // '') : 'closed';
}
# The same when no connection is there: P ends it first, nothing fails while it does.
sub let_go {
	run_program([ program('proxy'), 'kick', '--operator', 'hd-1' ], env => { PROXY_SETTINGS => "$m->{dir}/proxy" });
	return wait_until { !grep { /"kind":"brokered"/ } json_text($m->call('hd-1._connections')) } 5;
}
# After a failure B's standing stream may be away for a moment.
sub works { return wait_until { call() eq 'ok' } 10 }
sub runs { return !grep { !$m->{$_}->is_running } qw(hd-1 hd-2) }

sub fds { my ($name) = @_; return scalar grep { (readlink($_) // '') =~ /^(?:socket|pipe|anon_inode)/ } glob '/proc/' . $m->{$name}->pid . '/fd/*' }
works();
let_go();
works();
my %base = map { $_ => fds($_) } keys %page;
sub settled_of { my ($name) = @_; return sub { return works() && wait_until { fds($name) <= $base{$name} + 1 } 8 } }

for my $name (qw(hd-1 hd-2)) {
	my %common = (runs => \&runs, short => 6, program => 'hyper', settled => settled_of($name));
	my $before = sub { works() };
	# The first of them are those of a TLS connection that is accepted.
	fail_walk($page{$name}, $_, %common, what => "a call, $_", before => $before, scenario => \&call, first => $_ eq 'mem' && $name eq 'hd-1' ? 24 : 0) for qw(mem send recv);
	fail_walk($page{$name}, $_, %common, what => "a brokering, $_", before => sub { works(); let_go() }, scenario => \&call) for qw(mem fd kernel send recv);
}
hyper_done();
