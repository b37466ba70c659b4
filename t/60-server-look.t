#!/usr/bin/perl
# Guards: an operator sees what the running message server does, to whom it is connected and through whom, and learns why a connection did not come to be, at A and at B: status, connections, explain.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

my %socket = map { $_ => tmp() . "/$_.sock" } qw(hd-1 hd-2);
my $m = mesh(hyper => { map { $_ => qq(admin_socket = "$socket{$_}";\n) . ($_ eq 'hd-2' ? qq(endpoint_allow = [ "*" ];\n) : '') } keys %socket });

sub verb {
	my ($at, @words) = @_;
	return run_program([ program('hyper'), @words ], env => { HYPER_SETTINGS => "$m->{dir}/$at" }, timeout => 60);
}
sub asked { my ($exit, $out, $err) = verb(@_, '--json'); return $exit ? { exit => $exit, err => $err } : json_value($out) }
sub check_of { my ($a, $what) = @_; return (grep { $_->{check} eq $what } @{ $a->{checks} })[0] }

is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'the path works');

# status
my ($exit, $out, $err);
wait_until { ($exit, $out, $err) = verb('hd-1', 'status'); $out =~ /connections 3,/ }; # the standing stream may come after the call
is("$exit $err", '0 ', 'status: exit status 0');
like($out, qr/^hd-1  serving, version \S+, pid \d+, up /, 'who, what, since when');
like($out, qr/^calls 1, 0 of 4096 in flight, connections 3, in \S+, out \S+$/m, 'how much');
my $a = asked('hd-1', 'status');
is($a->{pid}, $m->{'hd-1'}->pid, 'its pid');
ok($a->{ready}, 'it is ready');
is_deeply($a->{reasons}, [], 'so there is no reason why not');

# connections
($exit, $out, $err) = verb('hd-1', 'connections');
is("$exit $err", '0 ', 'connections: exit status 0');
like($out, qr/^hd-2 +brokered +public-proxy-1\.ga +[0-9a-f]{12} +\S+ +1$/m, 'the brokered one');
like($out, qr/^public-proxy-1\.ga +direct +- +- /m, 'the direct one to the proxy\'s server');
is(scalar(grep { length > 80 } split /\n/, $out), 0, 'in 80 columns');
$a = asked('hd-1', 'connections', '--operator', 'hd-2');
is_deeply([ map { $_->{kind} } @{ $a->{connections} } ], ['brokered'], 'of one operator');
my $session = $a->{connections}[0]{session};

# explain: what came to be, at A and at B, by session
for my $side ([ 'hd-1', 'a', [qw(asked issued told parked confirmed answered paired secured)] ],
	[ 'hd-2', 'b', [qw(told confirmed paired secured)] ]) {
	my ($at, $letter, $steps) = @$side;
	$a = asked($at, 'explain', $session);
	my ($story) = @{ $a->{stories} // [] };
	is(scalar @{ $a->{stories} // [] }, 1, "$at: one story of that session") or diag(json_text($a));
	is($story->{side}, $letter, "$at: as $letter");
	is("$story->{from} $story->{to} $story->{via}", 'hd-1 hd-2 public-proxy-1.ga', "$at: whom it was between");
	is($story->{stage}, 'paired', "$at: it stands");
	is_deeply([ map { $_->{word} } @{ $story->{steps} } ], $steps, "$at: the steps that it knows");
}
($exit, $out) = verb('hd-1', 'explain', 'hd-2');
like($out, qr/^ok +way +brokered by the proxy public-proxy-1\.ga$/m, 'how it is reached');
like($out, qr/^ok +connected +now$/m, 'that it is');
like($out, qr/^ok +may call it /m, 'that it may be called');
like($out, qr/^session $session  hd-1 -> hd-2 /m, 'and how that came');

# explain: what did not
($exit, $out, $err) = verb('hd-1', 'explain', 'nobody');
is($exit, 0, 'nobody: exit status 0');
like($out, qr/^NO +entry +the directory has no entry of nobody/m, 'nobody: unknown to the directory');

$m->{'hd-2'}->stop;
ok(wait_until(sub { $m->ping->{error} }, 20), 'hd-2 is gone');
$m->ping;
my ($story) = @{ asked('hd-1', 'explain', 'hd-2')->{stories} };
is("$story->{stage} $story->{reason} $story->{step}", 'not paired not_connected told', 'B not connected: the reason and the step');
like($story->{help}, qr/\w/, 'and what to do');

# B refuses the endpoint that the proxy gives
my $file = "$m->{dir}/hd-2/001.cfg";
write_file($file, read_file($file) =~ s/endpoint_allow = \[ "\*" \]/endpoint_allow = [ "localhost:1" ]/r);
$m->start_one('hd-2');
ok(wait_until(sub { my $r = $m->ping; ($r->{error}{data}{reason} // '') eq 'refused' }, 20), 'hd-2 refuses');
($story) = @{ asked('hd-1', 'explain', 'hd-2')->{stories} };
is("$story->{stage} $story->{reason}", 'not paired refused', 'A sees that it was refused');
($story) = @{ asked('hd-2', 'explain', 'hd-1')->{stories} };
is("$story->{side} $story->{stage} $story->{reason} $story->{step}", 'b not paired refused told', 'B as well');
like($story->{why}, qr/endpoint_allow/, 'and B tells why');
like((verb('hd-2', 'explain', 'hd-1'))[1], qr/^  not paired: refused, at step told\n    why: .*endpoint_allow.*\n    do:  \S/m, 'for people, too');

# P is gone
$m->{ph}->stop;
ok(wait_until(sub { ($m->ping->{error}{data}{reason} // '') eq 'unreachable' }, 20), 'the proxy\'s server is gone');
($story) = @{ asked('hd-1', 'explain', 'public-proxy-1.ga')->{stories} };
is("$story->{stage} $story->{reason}", 'not paired unreachable', 'the proxy\'s server cannot be reached') or diag(json_text($story));

# what is wrong with the asking
is((verb('hd-1', 'explain'))[0], 64, 'explain without a word: 64');
$m->{'hd-1'}->stop;
is((verb('hd-1', 'status'))[0], 69, 'nobody serves the socket: 69');
hyper_done();
